"""The probe is scikit-learn's logistic regression, class by class."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from models.backbone import Backbone, ImageFeatures
from models.examples import ImageBatch
from models.method import Setup
from models.methods.linear_probe import LinearProbe, probe_inputs
from tests.models.conftest import small_backbone


class Given:
    """All examples at once, as they are."""

    def __init__(self, features: ImageFeatures, labels: torch.Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: torch.Tensor, device: torch.device) -> ImageBatch:
        features = (self.features.pooled, self.features.pooled_plain, self.features.dense)
        return ImageBatch(ImageFeatures(*(each[rows] for each in features)), self.labels[rows])


def test_it_agrees_with_scikit_learn_on_the_known_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(200, 6, generator=generator)
    dense = torch.randn(200, 3, 6, generator=generator)
    shown = torch.stack([pooled[:, 0] > 0.5, dense[:, :, 1].amax(dim=1) > 1], dim=1).to(torch.int8)
    labels = shown.masked_fill(torch.rand(200, 2, generator=generator) < 0.2, -1)
    features, decay = ImageFeatures(pooled, pooled, dense), 1e-2
    method = LinearProbe(LinearProbe.Settings(weight_decay=decay))
    backbone: Backbone = small_backbone()
    state = method.fit(Setup(backbone, ("a", "b")), Given(features, labels))
    scores = method.score_images(state, features, 1.0)["merged"].numpy()
    inputs = probe_inputs(features).numpy()
    for column in range(2):
        known = (labels[:, column] >= 0).numpy()
        # its C weighs the sum of errors against half the squared weights
        plain = LogisticRegression(C=1 / (decay * 200), tol=1e-8, max_iter=2000)
        plain.fit(inputs[known], labels[:, column].numpy()[known])
        expected = plain.decision_function(inputs)
        np.testing.assert_allclose(scores[:, column], expected, atol=0.02)
