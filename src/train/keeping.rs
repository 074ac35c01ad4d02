//! Stores frozen layers' activations in memory: GPU memory while there is room, then CPU memory.

use super::prefix::{Pick, Prefix};
use crate::cache::{self, StoragePlan};
use crate::objective::{Result, is_out_of_memory};
use candle_core::{Device, Tensor};

/// The activations kept so far, by view.
pub(super) struct Keeping<'p, 'a> {
    prefix: &'p Prefix<'a>,
    /// Maximum bytes of CPU memory.
    most: u64,
    kept: InMemory,
}

/// Activations in memory.
pub(super) enum InMemory {
    /// In CPU memory: all rows of each view.
    Cpu(Vec<Vec<u8>>),
    /// In GPU memory: for each view, one tensor per added chunk of rows.
    Gpu(Vec<Vec<Tensor>>),
}

impl<'p, 'a> Keeping<'p, 'a> {
    /// Keeps what `prefix` computes in the place that the plan names.
    pub fn new(prefix: &'p Prefix<'a>, plan: &StoragePlan) -> Self {
        let kept = match plan.device {
            true => InMemory::Gpu(Vec::new()),
            false => InMemory::Cpu(Vec::new()),
        };
        Self { prefix, most: plan.ram, kept }
    }

    /// Starts a view.
    pub fn view(&mut self) {
        match &mut self.kept {
            InMemory::Gpu(views) => views.push(Vec::new()),
            InMemory::Cpu(views) => views.push(self.prefix.layout().room()),
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
            (Err(error), InMemory::Gpu(_)) if is_out_of_memory(&error) => {
                self.move_away()?;
                self.prefix.rows(picks)?
            }
            (rows, _) => rows?,
        };
        if let InMemory::Gpu(views) = &mut self.kept {
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
        if let InMemory::Cpu(views) = &mut self.kept
            && let Some(view) = views.last_mut()
        {
            view.extend_from_slice(&rows);
        }
        Ok(())
    }

    /// Returns all kept activations.
    pub fn finish(self) -> InMemory {
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
        let InMemory::Gpu(views) = std::mem::replace(&mut self.kept, InMemory::Cpu(Vec::new()))
        else {
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
        self.kept = InMemory::Cpu(here);
        if let Some(gpu) = self.prefix.engine().gpu() {
            gpu.report_moved_to_cpu(needed);
        }
        Ok(())
    }
}
