"""The probe is scikit-learn's logistic regression, class by class."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from models.linear_probe import fit_linear_probe, probe_inputs


def test_it_agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(200, 6, generator=generator)
    dense = torch.randn(200, 3, 6, generator=generator)
    labels = torch.stack([pooled[:, 0] > 0.5, dense[:, :, 1].amax(dim=1) > 1], dim=1)
    decay = 1e-2
    probe = fit_linear_probe(pooled, dense, labels, weight_decay=decay)
    scores = probe.scores(pooled, dense).numpy()
    for column in range(2):
        # its C weighs the sum of errors against half the squared weights
        plain = LogisticRegression(C=1 / (decay * 200), tol=1e-8, max_iter=2000)
        plain.fit(probe_inputs(pooled, dense).numpy(), labels[:, column].numpy())
        expected = plain.decision_function(probe_inputs(pooled, dense).numpy())
        np.testing.assert_allclose(scores[:, column], expected, atol=0.02)
