//! The data plane: accepts connections, finds the route of each request, sends it to an endpoint and streams both ways.
//! Knows the snapshot, never Kubernetes.
