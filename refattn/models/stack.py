"""The stack of blocks that every transformer here is made of: any mechanism per layer, carries by chain.

A block is: self-attention, then (in a decoder) cross attention, then the feed-forward net, each with its residual.
"""

import zlib
from contextlib import contextmanager

import torch
from torch import nn

from refattn import attention
from refattn.layers.feed_forward import FeedForward
from refattn.layers.residual import Residual


@contextmanager
def seeded(seed, label):
    """Random numbers inside depend on (seed, label) alone, and the caller's generator is left as it was.

    So one mechanism's draws cannot shift another layer's weights, and models that differ in one part agree elsewhere.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{label}".encode()))
        yield


class Block(nn.Module):
    """Self-attention, optional cross attention, feed-forward; `forward` takes and returns the dict of carries.

    Args:
        width: D.  self_attention, cross_attention: modules under the attention contract (cross may be None).
        feed_forward: a module on [..., D], or None.
        residual: makes the connections around the attentions (the feed-forward net's is plain).
        norm, dropout, eps: of the connections, see `Residual`.
    """

    def __init__(
        self,
        width,
        self_attention,
        feed_forward,
        *,
        cross_attention=None,
        residual=Residual,
        norm="pre",
        dropout=0.0,
        eps=1e-5,
    ):
        super().__init__()
        placing = {"norm": norm, "dropout": dropout, "eps": eps}
        self.self_attention, self.cross_attention, self.feed_forward = self_attention, cross_attention, feed_forward

        def around(layer):
            return None if layer is None or layer.owns_residual else residual(width, **placing)

        self.self_residual, self.cross_residual = around(self_attention), around(cross_attention)
        self.feed_residual = None if feed_forward is None else Residual(width, **placing)

    def attend(self, layer, residual, x, carries, maps, label, **inputs):
        """One attention sub-layer: its residual around it, its carry taken from and put back into its chain."""
        chain = layer.chain_name(cross=layer.cross, is_causal=layer.is_causal)
        inputs["carry"] = carries.get(chain)
        read = x if residual is None else residual.before(x)
        if maps is not None:
            maps[label] = layer.attention_maps(read, **inputs)
        y, carry = layer(read, **inputs)
        if chain is not None:
            carries = carries | {chain: carry}
        return self.add(residual, x, y, carries, label)

    def add(self, residual, x, branch, carries, label):
        """The stream after a sub-layer, and the carries with the connection's own, if it has one."""
        if residual is None:
            return branch, carries
        key = f"residual-{label}"
        x, carry = residual.after(x, branch, carries.get(key))
        return x, carries if carry is None else carries | {key: carry}

    def feed(self, x):
        """The feed-forward sub-layer on [..., D]."""
        return x if self.feed_forward is None else self.feed_residual.around(x, self.feed_forward)

    def forward(self, x, carries, *, key_padding_mask=None, context=None, context_mask=None, maps=None):
        """`x [B, N, D]` and the carries after this block; `maps`, a dict, receives the attention maps if given."""
        own = {"key_padding_mask": key_padding_mask}
        x, carries = self.attend(self.self_attention, self.self_residual, x, carries, maps, "self", **own)
        if self.cross_attention is not None:
            other = {"context": context, "key_padding_mask": context_mask}
            x, carries = self.attend(self.cross_attention, self.cross_residual, x, carries, maps, "cross", **other)
        return self.feed(x), carries

    def can_step(self):
        """Whether the block can take one token at a time: a recurrence, and cross attention that reads once."""
        reads_once = self.cross_attention is None or hasattr(self.cross_attention, "read_context")
        return "step" in self.self_attention.forms and reads_once

    def step(self, x_t, state, carries):
        """One token `[B, D]`: its output, the new state ("self", in a decoder "cross"), the connections' carries."""
        residual = self.self_residual
        read = x_t if residual is None else residual.before(x_t)
        y, own = self.self_attention.step(read, state["self"])
        x_t, carries = self.add(residual, x_t, y, carries, "self")
        if self.cross_attention is not None:
            y = self.cross_attention.answer(self.cross_residual.before(x_t), state["cross"])
            x_t, carries = self.add(self.cross_residual, x_t, y, carries, "cross")
        return self.feed(x_t), state | {"self": own}, carries


class Stack(nn.Module):
    """Blocks in a row, with one carry per chain.

    Args:
        names: mechanism of each layer's self-attention, by catalogue name.
        width, num_heads: D and H.  ffn_dim: hidden width of the feed-forward nets (4 D unless given; 0 = none).
        options: keyword arguments for the mechanism: one dict for all layers, or a list with one per layer.
        is_causal: of the self-attention.  cross: each block also attends to a context, by the mechanisms `cross_names`.
        started, read_after: chains that begin before this stack (a decoder's, begun by its encoder), and chains whose
            last carry somebody reads after it. They decide which layers own what begins or ends a chain.
        residual: makes the connections around the attentions, see `Block`.
        norm, activation, dropout, eps: see `Residual` and `FeedForward`.  seed: of the weights.
    """

    def __init__(
        self,
        names,
        width,
        num_heads,
        *,
        ffn_dim=None,
        options=None,
        is_causal=False,
        cross=False,
        cross_names=None,
        cross_options=None,
        started=(),
        read_after=(),
        residual=Residual,
        norm="pre",
        activation="gelu",
        dropout=0.0,
        eps=1e-5,
        seed=0,
        label="layer",
    ):
        super().__init__()
        depth = len(names)
        plan = plan_sublayers(names, options, cross_names if cross else None, cross_options, is_causal)
        chains = [None if p is None else attention.mechanism(p[0]).chain_name(**p[2]) for p in plan]
        sublayers = []
        for place, (sublayer, chain) in enumerate(zip(plan, chains, strict=True)):
            if sublayer is None:
                sublayers.append(None)
                continue
            name, given, form = sublayer
            if attention.mechanism(name).owns_residual:
                given = {"norm": norm, "eps": eps} | given
            if chain is not None:
                first = chain not in chains[:place] and chain not in started
                last = chain not in chains[place + 1 :] and chain not in read_after
                given = {"first_in_chain": first, "last_in_chain": last} | given
            with seeded(seed, f"{label}{place // 2}/{'cross' if form['cross'] else 'self'}"):
                sublayers.append(attention.build(name, width, num_heads, dropout=dropout, **form, **given))
        self.blocks = nn.ModuleList()
        for i in range(depth):
            with seeded(seed, f"{label}{i}/feed-forward"):
                feed = None if ffn_dim == 0 else FeedForward(width, ffn_dim, activation=activation, dropout=dropout)
            parts = {"cross_attention": sublayers[2 * i + 1], "residual": residual}
            self.blocks.append(Block(width, sublayers[2 * i], feed, norm=norm, dropout=dropout, eps=eps, **parts))
        self.norm = nn.LayerNorm(width, eps=eps) if norm == "pre" else None

    @staticmethod
    def chains_of(names, cross_names=None):
        """Chains that a stack of these mechanisms touches: an encoder's, or (with `cross_names`) a decoder's."""
        if cross_names is None:
            found = {attention.mechanism(name).chain_name() for name in names}
        else:
            found = {attention.mechanism(name).chain_name(is_causal=True) for name in names}
            found |= {attention.mechanism(name).chain_name(cross=True) for name in cross_names}
        return frozenset(found - {None})

    def forward(self, x, carries=None, *, key_padding_mask=None, context=None, context_mask=None, maps=None):
        """`x [B, N, D]` and the final carries; `maps`, a list, receives one dict of maps per layer if given."""
        carries = {} if carries is None else carries
        masks = {"key_padding_mask": key_padding_mask, "context": context, "context_mask": context_mask}
        for block in self.blocks:
            layer_maps = None if maps is None else {}
            x, carries = block(x, carries, maps=layer_maps, **masks)
            if maps is not None:
                maps.append(layer_maps)
        return (x if self.norm is None else self.norm(x)), carries

    def can_step(self):
        """Whether every layer can take one token at a time."""
        return all(block.can_step() for block in self.blocks)

    def init_state(self, batch_size, carries=None, *, context=None, context_mask=None):
        """The state of every layer before the first token; a decoder reads its context [B, M, D] here, once.

        carries: chains that began before this stack.
        """
        carries, states = {} if carries is None else carries, []
        for block in self.blocks:
            layer = block.self_attention
            chain = layer.chain_name(cross=False, is_causal=True)
            state = {"self": layer.init_state(batch_size, carry=carries.get(chain))}
            if chain is not None and "carry" in state["self"]:
                carries = carries | {chain: state["self"]["carry"]}
            if block.cross_attention is not None:
                state["cross"] = block.cross_attention.read_context(context, context_mask)
            states.append(state)
        return states

    def step(self, x_t, states):
        """One token `[B, D]` through all layers: its output `[B, D]` and the new states."""
        after, carries = [], {}  # a connection's carry runs through the depth, anew for every token
        for block, state in zip(self.blocks, states, strict=True):
            x_t, state, carries = block.step(x_t, state, carries)
            after.append(state)
        return (x_t if self.norm is None else self.norm(x_t)), after


def per_layer(value, depth, argument):
    """A list with one entry per layer, from one value for all or a list of the right length."""
    if not isinstance(value, (list, tuple)):
        return [value] * depth
    if len(value) != depth:
        raise ValueError(f"{argument} has {len(value)} entries: wanted one, or one for each of {depth} layers")
    return list(value)


def plan_sublayers(names, options, cross_names, cross_options, is_causal):
    """Attention sub-layers in the order they run: (name, options, form) or None, two places a layer (self, cross)."""
    depth, plan = len(names), []
    options = per_layer(options, depth, "attention_options")
    crosses = per_layer(cross_names, depth, "cross_names")
    cross_options = per_layer(cross_options, depth, "cross_options")
    for name, given, cross, cross_given in zip(names, options, crosses, cross_options, strict=True):
        plan.append((name, given or {}, {"is_causal": is_causal, "cross": False}))
        plan.append(None if cross is None else (cross, cross_given or {}, {"is_causal": False, "cross": True}))
    return plan
