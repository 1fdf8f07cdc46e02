// Command opa-authz answers Envoy's ext_authz with OPA: a decision of OPA's SDK for each request, and its decision log on
// the console.
//
// It stands where OPA's own Envoy plugin would, for measuring only: same engine, same protocol, same log, and less work
// (it does not decode the gRPC message). Arguments: a Unix socket and a configuration file of OPA.
package main

import (
	"context"
	"log"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/sdk"
	"github.com/open-policy-agent/opa/v1/util"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

type server struct {
	auth.UnimplementedAuthorizationServer
	opa *sdk.OPA
}

// Check decides about one request by data.envoy.authz.allow. Anything but true is a refusal.
func (s *server) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	input, err := document(request)
	if err != nil {
		return nil, err
	}
	found, err := s.opa.Decision(ctx, sdk.DecisionOptions{Path: "/envoy/authz/allow", Input: input})
	if err != nil {
		return nil, err
	}
	code := codes.PermissionDenied
	if allowed, ok := found.Result.(bool); ok && allowed {
		code = codes.OK
	}
	return &auth.CheckResponse{Status: &status.Status{Code: int32(code)}}, nil
}

// document is the request as JSON has it, with its path taken apart.
func document(request *auth.CheckRequest) (map[string]any, error) {
	text, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	var input map[string]any
	if err := util.UnmarshalJSON(text, &input); err != nil {
		return nil, err
	}
	where, err := url.Parse(request.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	parts := []any{}
	for _, one := range strings.Split(strings.TrimLeft(where.Path, "/"), "/") {
		parts = append(parts, one)
	}
	input["parsed_path"] = parts
	return input, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := os.Open(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	opa, err := sdk.New(ctx, sdk.Options{ID: "opa-authz", Config: config})
	if err != nil {
		log.Fatal(err)
	}
	defer opa.Stop(context.Background())
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	serving := grpc.NewServer()
	auth.RegisterAuthorizationServer(serving, &server{opa: opa})
	go func() {
		<-ctx.Done()
		serving.Stop()
	}()
	if err := serving.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
