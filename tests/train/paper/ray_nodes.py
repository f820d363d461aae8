"""A Ray cluster of this machine as a program, since Ray leaves open what pytest complains of.

It prints the address, and for each word that it is given the node that it stands for: `add` starts one, `kill` kills
the newest. It ends, and all nodes do, with its standard input.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster()
    nodes = [cluster.add_node(num_cpus=1, include_dashboard=False)]
    print(cluster.address, flush=True)
    for word in sys.stdin:
        if word.strip() == "add":  # with an address of its own, or a program may take it for its own node
            nodes.append(cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2"))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print(len(nodes), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
