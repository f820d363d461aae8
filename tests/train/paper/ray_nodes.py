"""A Ray cluster of this machine as a program, since Ray leaves open what pytest complains of.

It prints the address, and for each word that it is given the node that it is about: `add` starts one, `kill` kills the
newest. It ends, and all nodes do, with its standard input.
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
            node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
            nodes.append(node)
        else:
            node = nodes.pop()
            cluster.remove_node(node, allow_graceful=False)
        print(node.node_id[:8], flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
