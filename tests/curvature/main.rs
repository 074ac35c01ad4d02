//! Curvature estimators on dense matrices with a known spectrum.

mod bad_input;
mod calibration;
mod dense;
mod lanczos;
mod long_vectors;
mod missing;
mod quadrature;
mod scaling;
mod steihaug;
mod trace;
