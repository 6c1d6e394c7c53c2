//! The CPU: multithreaded and vectorized, weights read in their own dtype, arithmetic in f32.
