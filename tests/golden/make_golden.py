#!/usr/bin/env python3
"""Makes the golden vectors of tests/ranks/golden.cpp: tiny mixture-of-experts models in PyTorch, with their weights,
tokens, logits, losses and gradients.

    python3 -m venv venv && venv/bin/pip install torch numpy transformers
    venv/bin/python tests/golden/make_golden.py tests/golden

All of it is written in PyTorch's own operations and in double precision, so that the vectors are good to the last digit
of fp32. Where the transformers package is there, the first model is also compared with its Mixtral.

NAME.bin holds little-endian arrays one after another; NAME.json the name, dtype, shape and offset of each, and the
config as `--set` assignments.
"""
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F

MODELS = {
    # Mixtral's shape: RMSNorm, SwiGLU, grouped KV heads, renormalised top-2, untied head.
    "mixtral_tiny": {
        "model": dict(vocab=37, d_model=24, layers=2, heads=6, kv_heads=2, d_ff=20, seq_len=13, norm_eps=1e-5,
                      rope_theta=10000.0, tie_embeddings=False, norm="rms", activation="swiglu"),
        "moe": dict(experts=5, top_k=2, capacity_factor=0.0, aux_loss=0.02, z_loss=0.003, every=1, shared_experts=0,
                    renormalise=True),
        "sequences": 3,
    },
    # The other branches: LayerNorm, GELU, shared experts, dense layers, raw gate weights, capacity with drops, tied.
    "gelu_shared_tiny": {
        "model": dict(vocab=29, d_model=16, layers=3, heads=2, kv_heads=2, d_ff=22, seq_len=9, norm_eps=1e-6,
                      rope_theta=500.0, tie_embeddings=True, norm="layer", activation="gelu"),
        "moe": dict(experts=4, top_k=3, capacity_factor=0.75, aux_loss=0.05, z_loss=0.01, every=2, shared_experts=2,
                    renormalise=False),
        "sequences": 2,
    },
    # Top-1 as in Switch, ReLU.
    "switch_tiny": {
        "model": dict(vocab=23, d_model=12, layers=2, heads=3, kv_heads=1, d_ff=17, seq_len=10, norm_eps=1e-5,
                      rope_theta=10000.0, tie_embeddings=True, norm="rms", activation="relu"),
        "moe": dict(experts=7, top_k=1, capacity_factor=1.25, aux_loss=0.01, z_loss=0.0, every=1, shared_experts=0,
                    renormalise=False),
        "sequences": 4,
    },
}


def make_weights(model, moe, generator):
    """Names and shapes as in the product; values larger than usual so that every branch matters."""
    d, head = model["d_model"], model["d_model"] // model["heads"]
    weights = {}

    def normal(name, *shape, scale=0.3):
        weights[name] = torch.randn(*shape, generator=generator, dtype=torch.float64).mul(scale)

    def norm(name):
        normal(name + ".weight", d, scale=0.2)
        weights[name + ".weight"] += 1
        if model["norm"] == "layer":
            normal(name + ".bias", d, scale=0.1)

    def dense(name, inner):
        if model["activation"] == "swiglu":
            normal(name + ".gate_proj.weight", inner, d)
        normal(name + ".up_proj.weight", inner, d)
        normal(name + ".down_proj.weight", d, inner)

    normal("embed_tokens.weight", model["vocab"], d)
    if not model["tie_embeddings"]:
        normal("lm_head.weight", model["vocab"], d)
    norm("norm")
    for l in range(model["layers"]):
        p = f"layers.{l}."
        norm(p + "input_layernorm")
        norm(p + "post_attention_layernorm")
        normal(p + "self_attn.q_proj.weight", d, d)
        normal(p + "self_attn.k_proj.weight", model["kv_heads"] * head, d)
        normal(p + "self_attn.v_proj.weight", model["kv_heads"] * head, d)
        normal(p + "self_attn.o_proj.weight", d, d)
        if (l + 1) % moe["every"]:
            dense(p + "mlp", model["d_ff"])
            continue
        normal(p + "router.weight", moe["experts"], d, scale=0.6)
        if moe["shared_experts"]:
            dense(p + "shared_experts", moe["shared_experts"] * model["d_ff"])
        for e in range(moe["experts"]):
            q = f"{p}experts.{e}."
            if model["activation"] == "swiglu":
                normal(q + "w_gate", model["d_ff"], d)
            normal(q + "w_up", model["d_ff"], d)
            normal(q + "w_down", d, model["d_ff"])
    # The product holds fp32: what it is given must be what was computed with.
    return {name: value.float().double().requires_grad_() for name, value in weights.items()}


def feed_forward(model, gate, up, down, x):
    if model["activation"] == "swiglu":
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
    act = {"gelu": F.gelu, "relu": F.relu}[model["activation"]]
    return F.linear(act(F.linear(x, up)), down)


def rotate(x, theta):  # x: [B, heads, S, C]
    s, c = x.shape[-2:]
    powers = theta ** (-2.0 * torch.arange(c // 2, dtype=torch.float64) / c)
    angle = torch.outer(torch.arange(s, dtype=torch.float64), powers)
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., : c // 2], x[..., c // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def mixture(model, moe, w, p, x):  # x: [T, D]; one micro-batch
    T, E, K = x.shape[0], moe["experts"], moe["top_k"]
    logits = F.linear(x, w[p + "router.weight"])
    probabilities = logits.softmax(-1)
    values, experts = probabilities.topk(K, dim=-1)
    gates = values / values.sum(-1, keepdim=True) if moe["renormalise"] else values
    chosen = torch.zeros(E, dtype=torch.float64)
    for e in experts.flatten().tolist():
        chosen[e] += 1
    capacity = math.ceil(T * K / E * moe["capacity_factor"]) if moe["capacity_factor"] > 0 else T * K
    taken = [0] * E
    rows, dropped = [], 0
    for t in range(T):
        row = torch.zeros(x.shape[1], dtype=torch.float64)
        for k in range(K):
            e = int(experts[t, k])
            if taken[e] == capacity:
                dropped += 1
                continue
            taken[e] += 1
            q = f"{p}experts.{e}."
            row = row + gates[t, k] * feed_forward(model, w.get(q + "w_gate"), w[q + "w_up"], w[q + "w_down"], x[t])
        rows.append(row)
    y = torch.stack(rows)
    if moe["shared_experts"]:
        q = p + "shared_experts."
        y = y + feed_forward(model, w.get(q + "gate_proj.weight"), w[q + "up_proj.weight"], w[q + "down_proj.weight"], x)
    aux = moe["aux_loss"] * E / (K * T * T) * (chosen * probabilities.sum(0)).sum()
    z = moe["z_loss"] * logits.logsumexp(-1).square().mean()
    return y, aux, z, dropped


def run(model, moe, w, tokens):
    B, S = tokens.shape
    d, H, G = model["d_model"], model["heads"], model["kv_heads"]
    C = d // H

    def norm(name, x):
        if model["norm"] == "layer":
            return F.layer_norm(x, (d,), w[name + ".weight"], w[name + ".bias"], model["norm_eps"])
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + model["norm_eps"]) * w[name + ".weight"]

    x = w["embed_tokens.weight"][tokens]
    aux = z = torch.zeros((), dtype=torch.float64)
    dropped = 0
    for l in range(model["layers"]):
        p = f"layers.{l}."
        h = norm(p + "input_layernorm", x)
        q, k, v = (F.linear(h, w[f"{p}self_attn.{n}_proj.weight"]).view(B, S, -1, C).transpose(1, 2) for n in "qkv")
        q, k = rotate(q, model["rope_theta"]), rotate(k, model["rope_theta"])
        k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(out.transpose(1, 2).reshape(B, S, d), w[p + "self_attn.o_proj.weight"])
        h = norm(p + "post_attention_layernorm", x)
        if (l + 1) % moe["every"]:
            m = p + "mlp."
            x = x + feed_forward(model, w.get(m + "gate_proj.weight"), w[m + "up_proj.weight"],
                                 w[m + "down_proj.weight"], h)
        else:
            y, a, b, n = mixture(model, moe, w, p, h.reshape(B * S, d))
            x, aux, z, dropped = x + y.view(B, S, d), aux + a, z + b, dropped + n
    head = w["embed_tokens.weight"] if model["tie_embeddings"] else w["lm_head.weight"]
    return F.linear(norm("norm", x), head), aux, z, dropped


def check_against_transformers(model, moe, w, tokens, logits):
    try:
        from transformers import MixtralConfig, MixtralForCausalLM
    except ImportError:
        print("  transformers is not installed: Mixtral not compared")
        return
    config = MixtralConfig(vocab_size=model["vocab"], hidden_size=model["d_model"], intermediate_size=model["d_ff"],
                           num_hidden_layers=model["layers"], num_attention_heads=model["heads"],
                           num_key_value_heads=model["kv_heads"], rms_norm_eps=model["norm_eps"],
                           num_local_experts=moe["experts"], num_experts_per_tok=moe["top_k"], sliding_window=None,
                           rope_theta=model["rope_theta"], max_position_embeddings=64, attn_implementation="eager",
                           tie_word_embeddings=False, experts_implementation="eager")
    peer = MixtralForCausalLM(config).double().eval()
    state = peer.state_dict()
    theirs = {}
    for name in state:
        if "experts" not in name and not name.endswith("gate.weight"):
            theirs[name] = w[name.removeprefix("model.")].detach()
    for l in range(model["layers"]):
        p = f"layers.{l}."
        router = next(n for n in state if n.startswith("model." + p) and n.endswith("gate.weight"))
        theirs[router] = w[p + "router.weight"].detach()
        fused = [n for n in state if n.startswith("model." + p) and "experts" in n]
        gate_up = [n for n in fused if "gate_up_proj" in n]
        if gate_up:
            theirs[gate_up[0]] = torch.stack([torch.cat([w[f"{p}experts.{e}.w_gate"], w[f"{p}experts.{e}.w_up"]])
                                              for e in range(moe["experts"])]).detach()
            down = next(n for n in fused if "down_proj" in n)
            theirs[down] = torch.stack([w[f"{p}experts.{e}.w_down"] for e in range(moe["experts"])]).detach()
        else:
            for n in fused:
                e, part = n.split("experts.")[1].split(".")[:2]
                theirs[n] = w[f"{p}experts.{e}." + {"w1": "w_gate", "w3": "w_up", "w2": "w_down"}[part]].detach()
    peer.load_state_dict(theirs)
    difference = ((peer(tokens).logits - logits).abs().max() / logits.abs().max()).item()
    print(f"  against transformers' Mixtral: largest difference of logits {difference:.2e} of the largest logit")
    assert difference < 1e-5, difference


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for seed, (name, spec) in enumerate(MODELS.items()):
        model, moe, B = spec["model"], spec["moe"], spec["sequences"]
        generator = torch.Generator().manual_seed(100 + seed)
        w = make_weights(model, moe, generator)
        stream = torch.randint(model["vocab"], (B, model["seq_len"] + 1), generator=generator)
        tokens, targets = stream[:, :-1], stream[:, 1:]
        logits, aux, z, dropped = run(model, moe, w, tokens)
        loss = F.cross_entropy(logits.reshape(-1, model["vocab"]), targets.reshape(-1))
        (loss + aux + z).backward()
        print(f"{name}: loss {loss.item():.6f} aux {aux.item():.6f} z {z.item():.6f} dropped {dropped}")
        if name.startswith("mixtral"):
            check_against_transformers(model, moe, w, tokens, logits.detach())

        arrays = {"tokens": tokens.contiguous().numpy().astype("<i4"),
                  "targets": targets.contiguous().numpy().astype("<i4"),
                  "logits": logits.detach().numpy().astype("<f4")}
        for n, v in w.items():
            arrays["weight/" + n] = v.detach().numpy().astype("<f4")
            gradient = torch.zeros_like(v) if v.grad is None else v.grad  # None: an expert that no token chose
            arrays["gradient/" + n] = gradient.numpy().astype("<f4")
        index, blob = {}, b""
        for n, a in arrays.items():
            index[n] = {"dtype": str(a.dtype), "shape": list(a.shape), "offset": len(blob)}
            blob += a.tobytes()
        sets = [f"{s}.{k}={json.dumps(v)}" for s in ("model", "moe") for k, v in spec[s].items()]
        sets += [f"train.micro_batch={B}", f"train.global_batch={B}"]
        (out / f"{name}.bin").write_bytes(blob)
        (out / f"{name}.json").write_text(json.dumps(
            {"made_by": f"tests/golden/make_golden.py, PyTorch {torch.__version__}", "config": sets,
             "loss": loss.item(), "aux_loss": aux.item(), "z_loss": z.item(), "dropped": dropped, "arrays": index},
            indent=1))


if __name__ == "__main__":
    main()
