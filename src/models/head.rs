//! The linear layers that compute the logits.

use super::Network;

impl Network {
    /// Indices of weight (C,D) and bias (C) of each linear layer of the head. With two layers, the logits
    /// are the mean of their outputs. `None` if the head has other parameters.
    pub fn linear_head(&self) -> Option<Vec<[usize; 2]>> {
        let params = self.params();
        let head = self.blocks().pop()?;
        let mut out = Vec::new();
        for &i in &head.tensors {
            let Some(layer) = params[i].name.strip_suffix(".weight") else { continue };
            let bias = format!("{layer}.bias");
            let bias = head.tensors.iter().copied().find(|&k| params[k].name == bias)?;
            let classes = self.classes();
            let fits = params[i].shape.len() == 2
                && params[i].shape[0] == classes
                && params[bias].shape == [classes];
            if !fits {
                return None;
            }
            out.push([i, bias]);
        }
        (2 * out.len() == head.tensors.len() && !out.is_empty()).then_some(out)
    }
}
