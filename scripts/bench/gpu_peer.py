"""What gpu.py compares with: the same GPT-2 in plain PyTorch, as people write it (autocast to bf16, fused AdamW, clipping).

    gpu_peer.py eager|compile|reduce-overhead DATA LAYERS,WIDTH,HEADS,CONTEXT,BATCH,VOCABULARY WINDOW WINDOWS
    … WEIGHTS BATCHES STEPS      instead: the losses of a run from those weights on those batches

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gpu_data
import numpy
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x):
        batch, context, width = x.shape
        packed = self.attn["c_attn"](self.ln_1(x)).view(batch, context, 3, self.heads, width // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.attn["c_proj"](mixed)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, context: int, vocabulary: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.h = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)

    def forward(self, tokens, labels):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        scores = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(scores.view(-1, scores.shape[-1]), labels.reshape(-1))


class Trainer:
    def __init__(self, mode: str, model: Gpt):
        self.mode, self.model = mode, model.cuda()
        decayed = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
        others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)
        modes = {"compile": "default", "reduce-overhead": "reduce-overhead"}
        self.forward = self.model if mode == "eager" else torch.compile(self.model, mode=modes[mode])

    def step(self, tokens, labels):
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = self.forward(tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def measure(trainer: Trainer, data: Path, batch: int, context: int, window: int, windows: int) -> dict:
    stream = torch.from_numpy(gpu_data.read(data))
    count = min(8, (len(stream) - 1) // (batch * context))
    size = count * batch * context
    tokens = stream[:size].view(count, batch, context).cuda()
    labels = stream[1 : size + 1].view(count, batch, context).cuda()
    started = time.perf_counter()
    for k in range(12):
        loss = trainer.step(tokens[k % count], labels[k % count])
    torch.cuda.synchronize()
    warm_up, times = time.perf_counter() - started, []
    for _ in range(windows):
        started = time.perf_counter()
        for k in range(window):
            loss = trainer.step(tokens[k % count], labels[k % count])
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started) / window)
    return {"ms": times, "loss": loss.item(), "warm_up": warm_up, "memory": torch.cuda.max_memory_allocated()}


def follow(trainer: Trainer, weights: str, batches: Path, steps: int) -> dict:
    from safetensors.torch import load_file

    trainer.model.load_state_dict({name: value.cuda() for name, value in load_file(weights).items()})
    losses = []
    for step in range(steps):
        names = ("input_ids", "labels")
        tokens, labels = (torch.from_numpy(numpy.load(batches / f"{name}-{step}.npy")).cuda() for name in names)
        losses.append(trainer.step(tokens, labels).item())
    return {"losses": losses}


def main() -> None:
    mode, data, shape, window, windows, *more = sys.argv[1:]
    layers, width, heads, context, batch, vocabulary = map(int, shape.split(","))
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    trainer = Trainer(mode, Gpt(layers, width, heads, context, vocabulary))
    if more:
        print(json.dumps(follow(trainer, more[0], Path(more[1]), int(more[2]))))
    else:
        print(json.dumps(measure(trainer, Path(data), batch, context, int(window), int(windows))))


if __name__ == "__main__":
    main()
