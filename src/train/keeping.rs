//! Frozen layers' activations on their way into memory: a GPU's while there is room, else the CPU's.

use super::prefix::{Pick, Prefix};
use crate::cache::{self, Plan};
use crate::device;
use crate::objective::{Result, is_out_of_memory};
use candle_core::{Device, Tensor};

/// What was kept so far, view by view.
pub(super) struct Keeping<'p, 'a> {
    prefix: &'p Prefix<'a>,
    /// Most bytes of the CPU's memory.
    most: u64,
    kept: Kept,
}

/// Activations in memory.
pub(super) enum Kept {
    /// The CPU's: of each view all rows.
    Here(Vec<Vec<u8>>),
    /// A GPU's: of each view tensors of as many rows as were added at once.
    There(Vec<Vec<Tensor>>),
}

impl<'p, 'a> Keeping<'p, 'a> {
    /// Keeps what `prefix` computes where the plan says.
    pub fn new(prefix: &'p Prefix<'a>, plan: &Plan) -> Self {
        let kept = match plan.device {
            true => Kept::There(Vec::new()),
            false => Kept::Here(Vec::new()),
        };
        Self { prefix, most: plan.ram, kept }
    }

    /// A view begins.
    pub fn view(&mut self) {
        match &mut self.kept {
            Kept::There(views) => views.push(Vec::new()),
            Kept::Here(views) => views.push(self.prefix.layout().room()),
        }
    }

    /// Computes and keeps rows of the view, in order.
    ///
    /// # Errors
    /// Those of computing them; [`cache::Error::NoMemory`] where a GPU gives out and the CPU's memory
    /// may not be taken instead.
    pub fn add(&mut self, picks: &[Pick]) -> Result<()> {
        let rows = match (self.prefix.rows(picks), &self.kept) {
            // What is kept there may be what leaves no room.
            (Err(error), Kept::There(_)) if is_out_of_memory(&error) => {
                self.move_away()?;
                self.prefix.rows(picks)?
            }
            (rows, _) => rows?,
        };
        if let Kept::There(views) = &mut self.kept {
            match self.prefix.put(&rows) {
                Ok(wave) => {
                    if let Some(waves) = views.last_mut() {
                        waves.push(wave);
                    }
                    return Ok(());
                }
                Err(error) if is_out_of_memory(&error) => self.move_away()?,
                Err(error) => return Err(error),
            }
        }
        if let Kept::Here(views) = &mut self.kept
            && let Some(view) = views.last_mut()
        {
            view.extend_from_slice(&rows);
        }
        Ok(())
    }

    /// All of it.
    pub fn finish(self) -> Kept {
        self.kept
    }

    /// Moves what lies on the GPU, which others may have filled since the plan was made.
    fn move_away(&mut self) -> Result<()> {
        let layout = self.prefix.layout();
        let needed = layout.bytes().saturating_mul(self.prefix.views() as u64);
        if needed > self.most {
            return Err(cache::Error::NoMemory { needed, allowed: self.most }.into());
        }
        let Kept::There(views) = std::mem::replace(&mut self.kept, Kept::Here(Vec::new())) else {
            return Ok(());
        };
        let mut here = Vec::with_capacity(views.len());
        for waves in views {
            let mut rows = layout.room();
            for wave in waves {
                rows.extend(layout.stored.encode(&wave.to_device(&Device::Cpu)?)?);
            }
            here.push(rows);
        }
        self.kept = Kept::Here(here);
        if let Some(gpu) = device::gpu() {
            gpu.report_moved_to_cpu(needed);
        }
        Ok(())
    }
}
