//! The engine: requests, one pool of blocks, the scheduler, the pair, and the step loop.
