// A server of grpc.health.v1 for kubelet's gRPC probes: Kubernetes' own, alone (the whole of agnhost needs modules
// that nothing else here does). grpc-health --port N --http-port M; POST /make-not-serving on M turns it sick.
package main

import (
	"os"

	health "k8s.io/kubernetes/test/images/agnhost/grpc-health-checking"
)

func main() {
	if health.CmdGrpcHealthChecking.Execute() != nil {
		os.Exit(1)
	}
}
