//! Stores frozen layers' activations in memory: GPU memory while there is room, then CPU memory.

use super::prefix::{Pick, Prefix};
use crate::cache::{self, Plan};
use crate::device;
use crate::objective::{Result, is_out_of_memory};
use candle_core::{Device, Tensor};

/// The activations kept so far, by view.
pub(super) struct Keeping<'p, 'a> {
    prefix: &'p Prefix<'a>,
    /// Maximum bytes of CPU memory.
    most: u64,
    kept: Kept,
}

/// Activations in memory.
pub(super) enum Kept {
    /// In CPU memory: all rows of each view.
    Here(Vec<Vec<u8>>),
    /// In GPU memory: for each view, one tensor per added chunk of rows.
    There(Vec<Vec<Tensor>>),
}

impl<'p, 'a> Keeping<'p, 'a> {
    /// Keeps what `prefix` computes in the place that the plan names.
    pub fn new(prefix: &'p Prefix<'a>, plan: &Plan) -> Self {
        let kept = match plan.device {
            true => Kept::There(Vec::new()),
            false => Kept::Here(Vec::new()),
        };
        Self { prefix, most: plan.ram, kept }
    }

    /// Starts a view.
    pub fn view(&mut self) {
        match &mut self.kept {
            Kept::There(views) => views.push(Vec::new()),
            Kept::Here(views) => views.push(self.prefix.layout().room()),
        }
    }

    /// Computes and keeps rows of the view, in order.
    ///
    /// # Errors
    /// Those of computing them; [`cache::Error::NoMemory`] if GPU memory runs out and CPU memory
    /// may not be used.
    pub fn add(&mut self, picks: &[Pick]) -> Result<()> {
        let rows = match (self.prefix.rows(picks), &self.kept) {
            // The kept activations may be what fills GPU memory.
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

    /// Returns all kept activations.
    pub fn finish(self) -> Kept {
        self.kept
    }

    /// Moves activations from GPU to CPU memory, since other processes may have used GPU memory
    /// since the plan was made.
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
