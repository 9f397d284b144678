"""The re-ID branch: replicated blocks C(k+1)*..C5* on a pooled ROI, pooling, and an embedding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personsearch_core.errors import PersonSearchError
from personsearch_core.models.backbone import norm_layer, stem_and_layers
from personsearch_core.models.detector import Normalise
from personsearch_core.models.states import backbone_state, imagenet_backbone, load_state
from personsearch_core.recipes import SHARED_BLOCKS, BranchModel, DetectorModel, Variant, block_channels


class GeneralisedMeanPool(nn.Module):
    """(mean x^p)^(1/p) over the map, p learnt from 3 (Radenovic et al. 2019); p = 1 is the average."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        raised = x.float().clamp(min=1e-6) ** self.p
        return raised.mean(dim=(-2, -1), keepdim=True) ** (1.0 / self.p)


class Branch(nn.Module):
    """Embeds pooled maps (B, C, h, w) of j2-j4, or uint8 crops (B, 3, h, w) of disj, as (B, D).

    `forward` returns the last layer's output, for the losses; `embed` returns embeddings to compare people
    with. Inputs of another precision are cast to that of the parameters. `build_branch` builds one with its
    initial weights.

    Parameters
    ----------
    variant
        `j2`, `j3`, `j4` or `disj`.
    detector_model
        The detector whose blocks the branch continues.
    branch
        The network.
    channels
        Number of channels of another network's maps, which are pooled and embedded without blocks of a
        ResNet; None for maps or crops of the variant.

    Examples
    --------
    >>> detector = DetectorModel(backbone="resnet18", initial_weights=None, norm="group")
    >>> recipe = BranchModel(embedding_dim=8, initial_weights="random")
    >>> Branch("j4", detector, recipe).eval().embed(torch.zeros(2, 256, 16, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        variant: Variant,
        detector_model: DetectorModel,
        branch: BranchModel,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.channels = channels
        self.detector_model = detector_model
        self.branch = branch
        self.norm_epsilon = branch.epsilon(detector_model)
        norm = norm_layer(branch.norm, self.norm_epsilon)
        network = stem_and_layers(detector_model.backbone, norm)
        blocks = OrderedDict(network.named_children())
        self.normalise: nn.Module = nn.Identity()
        if channels is not None:
            blocks = OrderedDict()
        elif variant == "disj":
            self.normalise = Normalise()
        else:
            replicated = [f"layer{block - 1}" for block in range(SHARED_BLOCKS[variant] + 1, 6)]
            blocks = OrderedDict((name, blocks[name]) for name in replicated)
        if branch.last_stride == 1:
            _remove_stride(network.layer4)
        self.blocks = nn.Sequential(blocks)
        self.pool: nn.Module = {
            "average": nn.AdaptiveAvgPool2d(1),
            "max": nn.AdaptiveMaxPool2d(1),
            "gem": GeneralisedMeanPool(),
        }[branch.pooling]
        width = channels or block_channels(detector_model.backbone, 5)
        self.embedding = nn.Linear(width, branch.embedding_dim)

    def features(self, pooled: Tensor) -> Tensor:
        """The last block's map, (B, C5, h', w')."""
        if pooled.dtype != torch.uint8:
            pooled = pooled.to(self.embedding.weight.dtype)
        out: Tensor = self.blocks(self.normalise(pooled))
        return out

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.embedding(self.pool(self.features(pooled)).flatten(1))
        return out

    def embed(self, pooled: Tensor) -> Tensor:
        """Embeddings to compare people with.

        Parameters
        ----------
        pooled
            Maps (B, C, h, w) of j2-j4, or uint8 crops (B, 3, h, w) of disj.

        Returns
        -------
        Tensor
            (B, D) float32, L2-normalised if the recipe says so.
        """
        embeddings = self(pooled).float()
        return F.normalize(embeddings, dim=1) if self.branch.normalise else embeddings


def build_branch(
    variant: Variant,
    detector_model: DetectorModel,
    branch: BranchModel,
    detector_state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    channels: int | None = None,
) -> Branch:
    """A branch of the detector's kind of ResNet, with its initial weights.

    Parameters
    ----------
    variant
        `j2`, `j3`, `j4` or `disj`.
    detector_model
        The detector whose maps the branch reads.
    branch
        The recipe.
    detector_state
        The detector's state dict, for initial weights `detector`; disj then starts with its whole backbone.
    seed
        Of random weights; torch's own generator stays as it was.
    channels
        Of another network's maps, which the branch only pools and embeds; its weights are random.

    Returns
    -------
    Branch
        On the CPU, in training mode.

    Raises
    ------
    PersonSearchError
        If the initial weights are missing or do not fit.

    Examples
    --------
    >>> recipe = BranchModel(embedding_dim=8, initial_weights="random")
    >>> branch = build_branch("j4", DetectorModel(backbone="resnet18"), recipe).eval()
    >>> branch.embed(torch.zeros(2, 256, 16, 8)).shape
    torch.Size([2, 8])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Branch(variant, detector_model, branch, channels)
    if branch.initial_weights == "random":
        return module
    if branch.initial_weights == "imagenet":
        weights = imagenet_backbone(detector_model.backbone)
    elif detector_state is None:
        raise PersonSearchError(
            f"a branch ({variant}) with initial_weights 'detector' needs a detector; "
            "use 'imagenet' or 'random' without one"
        )
    else:
        weights = backbone_state(detector_state)
    names = tuple(f"{name}." for name, _ in module.blocks.named_children())
    own = {name: tensor for name, tensor in weights.items() if name.startswith(names)}
    load_state(module.blocks, own, branch.initial_weights)
    return module


def _remove_stride(layer: nn.Module) -> None:
    """Keep the resolution in C5*, as many re-ID networks do (Luo et al. 2019)."""
    for part in layer.modules():
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)
