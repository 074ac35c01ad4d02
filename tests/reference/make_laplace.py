"""Last-layer Laplace with Kronecker factors, by laplace-torch 0.3.

    pip install torch laplace-torch backpack-for-pytorch
    python make_laplace.py > laplace.json
"""

import json

import torch
from laplace import Laplace
from laplace.curvature import BackPackGGN

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
train, test = torch.randn(40, 5), 1.5 * torch.randn(12, 5)
model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(5, 4))
labels = torch.distributions.Categorical(logits=model(train)).sample()
weight, bias = (p.detach().clone() for p in model[1].parameters())

# One batch: laplace-torch averages A over the batches, whatever their sizes.
data = torch.utils.data.TensorDataset(train, labels)
loader = torch.utils.data.DataLoader(data, batch_size=len(data))
posterior = Laplace(model, "classification", "last_layer", "kron", backend=BackPackGGN)
posterior.fit(loader)

posteriors = []
for prior in (1e-2, 1.0, 30.0):
    posterior.prior_precision = torch.tensor(prior)
    _, covariance = posterior._glm_predictive_distribution(test)
    probabilities = posterior(test, pred_type="glm", link_approx="probit")
    posteriors.append(
        {
            "prior": prior,
            "variances": covariance.diagonal(dim1=1, dim2=2).tolist(),
            "probabilities": probabilities.tolist(),
        }
    )

print(
    json.dumps(
        {
            "weight": weight.tolist(),
            "bias": bias.tolist(),
            "train": train.tolist(),
            "labels": labels.tolist(),
            "test": test.tolist(),
            "posteriors": posteriors,
        }
    )
)
