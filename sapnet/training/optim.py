"""The optimizer of a training, and its learning rate at each step."""

from typing import Any

import torch

from sapnet.config.schema import TrainConfig
from sapnet.data.sampler import Step


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over what is not frozen; norms and biases are not decayed under AdamW."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=0.0,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
    flat = [p for p in parameters if p.ndim < 2]
    deep = [p for p in parameters if p.ndim >= 2]
    groups: list[dict[str, Any]] = [{"params": deep}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: Step) -> None:
    """Linear warm-up, then a tenth at each drop; scaled by the batch (`reference_batch`)."""
    rate = config.learning_rate * config.batch_size / config.reference_batch
    warmup = min(config.warmup_steps, step.total // 4)
    if step.index < warmup:
        rate *= max((step.index + 1) / (warmup + 1), 0.001)
    rate *= 0.1 ** sum(step.fraction >= drop for drop in config.drops)
    for group in optimizer.param_groups:
        group["lr"] = rate
