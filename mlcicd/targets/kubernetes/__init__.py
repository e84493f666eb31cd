"""The `kubernetes` target: a workload a version, and an HTTPRoute whose weights are the shares."""

from mlcicd.targets.kubernetes.target import KubernetesTarget

__all__ = ["KubernetesTarget"]
