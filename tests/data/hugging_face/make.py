"""Makes the models beside it: tiny, random, and what transformers computes with them.

    python make.py        with transformers 5.4 and torch 2.11

Each folder is what save_pretrained() writes, without generation_config.json, and logits.safetensors: input_ids and the
logits in float32.  llama: the scaled rotary embedding of Llama 3, a head_dim of its own, two files.  qwen2: bfloat16,
tied, and config.json as transformers 4 wrote it.  gpt2: float16.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM)  # fmt: skip

HERE = pathlib.Path(__file__).resolve().parent
SIZES = {"vocab_size": 72, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip


def make(name, model, dtype, **saving):
    """Weights and biases that all matter, rounded to `dtype`; the logits are those of the rounded ones."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1) * 0.5).to(dtype))
    model.eval()
    ids = torch.randint(0, SIZES["vocab_size"], (2, 24))
    with torch.no_grad():
        logits = model(ids).logits
    model.to(dtype).save_pretrained(HERE / name, **saving)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    save_file({"input_ids": ids, "logits": logits.contiguous()}, HERE / name / "logits.safetensors")


make("llama", LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=8, rope_parameters=LLAMA3)), torch.float32,
     max_shard_size="15KB")  # fmt: skip
make("qwen2", Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)), torch.bfloat16)
make("gpt2", GPT2LMHeadModel(GPT2Config(vocab_size=72, n_positions=32, n_embd=16, n_layer=2, n_head=4)), torch.float16)

path = HERE / "qwen2" / "config.json"
config = json.loads(path.read_text())
config["rope_theta"], config["rope_scaling"] = config.pop("rope_parameters")["rope_theta"], None
config["torch_dtype"] = config.pop("dtype")
path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
