//! The SIMT runtime: collectives against their definitions, planted faults, speed.

mod speed;
