//! Estimators of curvature against dense matrices whose spectrum is known.

mod bad_input;
mod calibration;
mod dense;
mod lanczos;
mod lanczos_limits;
mod long_vectors;
mod quadrature;
mod scaling;
mod steihaug;
mod trace;
