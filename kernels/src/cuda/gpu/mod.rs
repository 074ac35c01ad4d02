//! Operations on tensors that lie on a CUDA device: addresses and memory on one side, launches as
//! data from [`super::Planner`] on the other, and cuBLAS for products.
//!
//! Everything computed goes to candle's stream of the device, in order: memory that is freed after a
//! launch was sent is given to others only once the launch has ended. Inputs come beside it, on a
//! stream of their own ([`Uploads`]).

mod attention;
mod cast;
mod device;
mod gemm;
mod layers;
mod memory;
mod moves;
mod product;
mod rows;
mod upload;

pub(crate) use attention::{gradients as attention_gradients, value as attention_value};
pub(crate) use cast::cast;
pub use device::{is_out_of_memory, open, peak_mib, room, trim};
pub use layers::{Moments, adamw_step, axpy, by_magnitude, products, sgd_step};
pub use memory::end_to_end;
pub(crate) use moves::{moved, prepend};
pub(crate) use product::product;
pub(crate) use rows::{add_into, plus, run as run_rows};
pub use upload::{Upload, Uploads};
