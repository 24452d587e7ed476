"""Costs of mechanisms against each other, against their floor, and against the packages people use for the same work.

Two references stand beside each mechanism: torch's fused softmax attention, and the mechanism's *floor*, its own linear
layers on the same shapes with nothing between them. What lies above the floor is what a better algorithm could save.

    rows = bench.run(["linear", "luna"], [1024, 4096])        # each cell timed alternating with its references
    found = bench.against_peers(["performer"], [1024])        # the same beside other packages, where installed
    bench.figure(bench.load())                                # what was recorded
"""

from refattn.bench.peers import PEERS, against_peers
from refattn.bench.report import RECORDED, figure, load, peer_table, record, summarise, summary_table
from refattn.bench.run import CHUNKED, floor, run

__all__ = ["CHUNKED", "PEERS", "RECORDED", "against_peers", "figure", "floor", "load", "peer_table", "record", "run"]
__all__ += ["summarise", "summary_table"]
