package cri

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// answers is what an RPC says to an empty request, and to one about objects that nobody has.
type answers struct {
	empty   codes.Code
	names   string // the field that the empty request lacks
	unknown codes.Code
}

// Every RPC has a row: a new one of the CRI fails the test until it has one.
var rpcAnswers = map[string]answers{
	"Version":                   {codes.OK, "", codes.OK},
	"Status":                    {codes.OK, "", codes.OK},
	"RuntimeConfig":             {codes.OK, "", codes.OK},
	"UpdateRuntimeConfig":       {codes.OK, "", codes.InvalidArgument},
	"RunPodSandbox":             {codes.InvalidArgument, "config.metadata.name", codes.InvalidArgument},
	"StopPodSandbox":            {codes.InvalidArgument, "pod_sandbox_id", codes.OK},
	"RemovePodSandbox":          {codes.InvalidArgument, "pod_sandbox_id", codes.OK},
	"PodSandboxStatus":          {codes.InvalidArgument, "pod_sandbox_id", codes.NotFound},
	"ListPodSandbox":            {codes.OK, "", codes.OK},
	"StreamPodSandboxes":        {codes.OK, "", codes.OK},
	"CreateContainer":           {codes.InvalidArgument, "pod_sandbox_id", codes.NotFound},
	"StartContainer":            {codes.InvalidArgument, "container_id", codes.NotFound},
	"StopContainer":             {codes.InvalidArgument, "container_id", codes.OK},
	"RemoveContainer":           {codes.InvalidArgument, "container_id", codes.OK},
	"ListContainers":            {codes.OK, "", codes.OK},
	"StreamContainers":          {codes.OK, "", codes.OK},
	"ContainerStatus":           {codes.InvalidArgument, "container_id", codes.NotFound},
	"UpdateContainerResources":  {codes.InvalidArgument, "container_id", codes.InvalidArgument},
	"ReopenContainerLog":        {codes.InvalidArgument, "container_id", codes.NotFound},
	"ExecSync":                  {codes.InvalidArgument, "container_id", codes.NotFound},
	"Exec":                      {codes.InvalidArgument, "container_id", codes.InvalidArgument},
	"Attach":                    {codes.InvalidArgument, "container_id", codes.InvalidArgument},
	"PortForward":               {codes.InvalidArgument, "pod_sandbox_id", codes.NotFound},
	"ContainerStats":            {codes.InvalidArgument, "container_id", codes.NotFound},
	"ListContainerStats":        {codes.OK, "", codes.OK},
	"StreamContainerStats":      {codes.OK, "", codes.OK},
	"PodSandboxStats":           {codes.InvalidArgument, "pod_sandbox_id", codes.NotFound},
	"ListPodSandboxStats":       {codes.OK, "", codes.OK},
	"StreamPodSandboxStats":     {codes.OK, "", codes.OK},
	"CheckpointContainer":       {codes.Unimplemented, "CheckpointContainer", codes.Unimplemented},
	"CheckpointPod":             {codes.Unimplemented, "CheckpointPod", codes.Unimplemented},
	"RestorePod":                {codes.Unimplemented, "RestorePod", codes.Unimplemented},
	"GetContainerEvents":        {codes.OK, "", codes.OK}, // a stream without end: only opened
	"ListMetricDescriptors":     {codes.OK, "", codes.OK},
	"ListPodSandboxMetrics":     {codes.OK, "", codes.OK},
	"StreamPodSandboxMetrics":   {codes.OK, "", codes.OK},
	"UpdatePodSandboxResources": {codes.InvalidArgument, "pod_sandbox_id", codes.InvalidArgument},
	"ListImages":                {codes.OK, "", codes.OK},
	"StreamImages":              {codes.OK, "", codes.OK},
	"ImageStatus":               {codes.InvalidArgument, "image.image", codes.OK},
	"PullImage":                 {codes.InvalidArgument, "image.image", codes.Internal},
	"RemoveImage":               {codes.InvalidArgument, "image.image", codes.OK},
	"ImageFsInfo":               {codes.OK, "", codes.OK},
}

// populate sets every field of a message: texts to `text`, numbers to 1, lists and maps to one entry.
func populate(m protoreflect.Message, text string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.IsMap():
			m.Mutable(field).Map().Set(protoreflect.ValueOfString(text).MapKey(), protoreflect.ValueOfString(text))
		case field.IsList() && field.Message() != nil:
			populate(m.Mutable(field).List().AppendMutable().Message(), text)
		case field.IsList():
			m.Mutable(field).List().Append(leaf(field, text))
		case field.Message() != nil:
			populate(m.Mutable(field).Message(), text)
		default:
			m.Set(field, leaf(field, text))
		}
	}
}

func leaf(field protoreflect.FieldDescriptor, text string) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(0)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1)
	}
	panic("a kind that the CRI did not have: " + field.Kind().String())
}

// eachLeaf calls `visit` with the path of every text and enumeration of a populated message, and with what sets it.
func eachLeaf(m protoreflect.Message, path string, visit func(path string, kind protoreflect.Kind, set func(protoreflect.Value))) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		at := path + string(field.Name())
		kind := field.Kind()
		texts := kind == protoreflect.StringKind || kind == protoreflect.EnumKind
		switch {
		case field.IsMap():
			values := m.Mutable(field).Map()
			values.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
				visit(at+"[0].value", protoreflect.StringKind, func(v protoreflect.Value) { values.Set(key, v) })
				return false
			})
		case field.IsList() && field.Message() != nil:
			eachLeaf(m.Mutable(field).List().Get(0).Message(), at+"[0].", visit)
		case field.IsList() && texts:
			list := m.Mutable(field).List()
			visit(at+"[0]", kind, func(v protoreflect.Value) { list.Set(0, v) })
		case field.Message() != nil && !field.IsList():
			eachLeaf(m.Mutable(field).Message(), at+".", visit)
		case texts:
			visit(at, kind, func(v protoreflect.Value) { m.Set(field, v) })
		}
	}
}

func invoke(peer *grpc.ClientConn, method protoreflect.MethodDescriptor, request proto.Message, options ...grpc.CallOption) error {
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		return peer.Invoke(ctx, path, request, dynamicpb.NewMessage(method.Output()), options...)
	}
	stream, err := peer.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path, options...)
	if err != nil {
		return err
	}
	if err = stream.SendMsg(request); err != nil {
		return err
	}
	stream.CloseSend()
	for err == nil {
		err = stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// rawCodec sends bytes as a message.
type rawCodec struct{ bytes []byte }

func (c rawCodec) Marshal(any) ([]byte, error)     { return c.bytes, nil }
func (c rawCodec) Unmarshal(_ []byte, _ any) error { return nil }
func (c rawCodec) Name() string                    { return "proto" }

func TestEveryRpcRefusesByName(t *testing.T) {
	moatOnly(t, "the words are moat's")
	d := startDaemon(t)
	peer, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer peer.Close()
	check := func(what string, err error, code codes.Code, word string) {
		t.Helper()
		if status.Code(err) != code || (code != codes.OK && !strings.Contains(err.Error(), word)) || (err != nil && len(err.Error()) > 7000) {
			t.Errorf("%s: wanted %v with %q: %.300v", what, code, word, err)
		}
	}
	nul, long := protoreflect.ValueOfString("a\x00b"), protoreflect.ValueOfString(strings.Repeat("x", 300<<10))
	file := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
	seen, tried := 0, 0
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			name := string(method.Name())
			wanted, known := rpcAnswers[name]
			if !known {
				t.Errorf("%s: no row in the table", name)
				continue
			}
			seen++
			if name == "GetContainerEvents" {
				continue // nothing in its request, and no end: TestEvents
			}
			// A registry that cannot be reached is no fault of ours: of all methods PullImage alone may say so.
			check(name+" with nothing", invoke(peer, method, dynamicpb.NewMessage(method.Input())), wanted.empty, wanted.names)
			// Nobody is called so, and no message repeats it all.
			for _, text := range []string{"no-such", "..", strings.Repeat("N", 20<<10), "\n\u2028%s%n\x1b[2J"} {
				request := dynamicpb.NewMessage(method.Input())
				populate(request, text)
				err := invoke(peer, method, request)
				if code := status.Code(err); text == "no-such" && code != wanted.unknown {
					t.Errorf("%s of no such object: wanted %v: %v", name, wanted.unknown, err)
				} else if (code == codes.Internal && name != "PullImage") || code == codes.Unknown || code == codes.ResourceExhausted || (err != nil && len(err.Error()) > 7000) {
					t.Errorf("%s about %.20q: %.300v", name, text, err)
				}
			}
			if wanted.empty == codes.Unimplemented {
				continue
			}
			request := dynamicpb.NewMessage(method.Input())
			populate(request, "x")
			eachLeaf(request, "", func(path string, kind protoreflect.Kind, set func(protoreflect.Value)) {
				tried++
				if kind == protoreflect.EnumKind {
					set(protoreflect.ValueOfEnum(77))
					check(name+" with enumerator 77", invoke(peer, method, request), codes.InvalidArgument, path+": 77")
					set(protoreflect.ValueOfEnum(0))
					return
				}
				set(nul)
				check(name+" with NUL", invoke(peer, method, request), codes.InvalidArgument, path+": ")
				set(long)
				check(name+" with 300 KiB", invoke(peer, method, request), codes.InvalidArgument, path+": ")
				set(protoreflect.ValueOfString("x"))
			})
			for _, bytes := range []string{"\xff", "\x0a\x05ab", "\x0a\x02\xff\xfe", strings.Repeat("\x0b", 5000)} {
				if method.Input().Fields().Len() == 0 && bytes[0] == '\x0a' {
					continue // an unknown field, which protobuf passes over
				}
				err := invoke(peer, method, request, grpc.ForceCodec(rawCodec{[]byte(bytes)}))
				if err == nil && bytes != "\x0a\x02\xff\xfe" {
					t.Errorf("%s takes %.20q", name, bytes)
				}
			}
		}
	}
	if seen != len(rpcAnswers) || tried < 250 {
		t.Errorf("%d methods of %d, %d fields", seen, len(rpcAnswers), tried)
	}
	// None of it made anything, and an honest client is served.
	pods, err := d.runtime.ListPodSandbox(ctx, nil)
	must(t, err)
	if len(pods) != 0 {
		t.Errorf("pods were made: %v", pods)
	}
	_, out := newPod(d).run("echo served")
	equal(t, out, "served\n", "an honest client")
}
