package cri

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// implemented is what this step of moat serves; every other method of the CRI says by its name that it does not.
var implemented = map[string]bool{
	"Version": true, "Status": true, "RuntimeConfig": true, "UpdateRuntimeConfig": true,
	"RunPodSandbox": true, "StopPodSandbox": true, "RemovePodSandbox": true, "PodSandboxStatus": true, "ListPodSandbox": true,
	"CreateContainer": true, "StartContainer": true, "StopContainer": true, "RemoveContainer": true, "ListContainers": true,
	"ContainerStatus": true, "ExecSync": true, "ReopenContainerLog": true, "Exec": true, "Attach": true, "PortForward": true,
	"ContainerStats": true, "ListContainerStats": true, "PodSandboxStats": true, "ListPodSandboxStats": true,
	"ListMetricDescriptors": true, "ListPodSandboxMetrics": true, "StreamPodSandboxes": true, "StreamContainers": true,
	"StreamContainerStats": true, "StreamPodSandboxStats": true, "StreamPodSandboxMetrics": true, "StreamImages": true,
	"GetContainerEvents": true, "UpdateContainerResources": true, "UpdatePodSandboxResources": true,
	"PullImage": true, "ListImages": true, "ImageStatus": true, "RemoveImage": true, "ImageFsInfo": true,
}

func TestOtherMethodsSayThatTheyAreNotThere(t *testing.T) {
	moatOnly(t, "it has them")
	d := startDaemon(t)
	peer, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer peer.Close()
	file := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
	seen := 0
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		for j := range service.Methods().Len() {
			method := service.Methods().Get(j)
			seen++
			if implemented[string(method.Name())] {
				continue
			}
			path := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
			request, reply := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
			if method.IsStreamingServer() {
				stream, openErr := peer.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
				must(t, openErr)
				must(t, stream.SendMsg(request))
				must(t, stream.CloseSend())
				err = stream.RecvMsg(reply)
			} else {
				err = peer.Invoke(ctx, path, request, reply)
			}
			if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), string(method.Name())) {
				t.Errorf("%s: %v", method.Name(), err)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d methods in the CRI?", seen)
	}
}
