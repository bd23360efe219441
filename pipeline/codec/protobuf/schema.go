package protobuf

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// mainFile is what the text of a schema is called where it has no path.
const mainFile = "elbo-schema.proto"

// Confluent's serializers import these without registering them.
const (
	confluentMeta = `syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
		message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
		extend google.protobuf.FileOptions { Meta file_meta = 1088; }
		extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
		extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
		extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
		extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }`
	confluentDecimal = `syntax = "proto3"; package confluent.type;
		message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }`
)

// compileText reads a text of Protobuf and what it imports, by path. In place of a
// text there may be a FileDescriptorProto in base64, as some serializers register it.
func compileText(ctx context.Context, text string, imports map[string]string) (protoreflect.FileDescriptor, error) {
	open := protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		body, ok := imports[path]
		switch {
		case path == mainFile:
			body = text
		case ok:
		case path == "confluent/meta.proto":
			body = confluentMeta
		case path == "confluent/type/decimal.proto":
			body = confluentDecimal
		default:
			return protocompile.SearchResult{}, fs.ErrNotExist
		}
		if file := unpacked(body); file != nil {
			file.Name = &path
			return protocompile.SearchResult{Proto: file}, nil
		}
		return protocompile.SearchResult{Source: strings.NewReader(body)}, nil
	})
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(open), MaxParallelism: 1}
	files, err := c.Compile(ctx, mainFile)
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// unpacked reads base64; nil means that the text is none.
func unpacked(text string) *descriptorpb.FileDescriptorProto {
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(data) == 0 {
		return nil
	}
	var file descriptorpb.FileDescriptorProto
	if proto.Unmarshal(data, &file) != nil {
		return nil
	}
	return &file
}

// compile reads a schema of the registry.
func compile(ctx context.Context, s *registry.Schema) (protoreflect.FileDescriptor, error) {
	if s.Type != registry.Protobuf {
		return nil, fmt.Errorf("is a schema of %s, not of Protobuf", s.Type)
	}
	imports := map[string]string{}
	for _, r := range s.Imports() {
		imports[r.Name] = r.Schema.Text
	}
	return compileText(ctx, s.Text, imports)
}

// fromSet reads a descriptor set and finds a message in it; without a name that is
// the first message of the last file, which protoc writes behind those it imports.
func fromSet(data []byte, name string) (protoreflect.MessageDescriptor, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("is no descriptor set: %w", err)
	}
	if len(set.GetFile()) == 0 {
		return nil, errors.New("the descriptor set is empty")
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, err
	}
	if name == "" {
		last, err := files.FindFileByPath(set.GetFile()[len(set.GetFile())-1].GetName())
		if err != nil {
			return nil, err
		}
		return find(last, "")
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if errors.Is(err, protoregistry.NotFound) {
		return nil, fmt.Errorf("there is no message %s", name)
	} else if err != nil {
		return nil, err
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no message", name)
	}
	return m, nil
}

// find returns a message of a file by its full name, or by its name without the
// package; "" is the first one.
func find(f protoreflect.FileDescriptor, name string) (protoreflect.MessageDescriptor, error) {
	if f.Messages().Len() == 0 {
		return nil, errors.New("the schema has no message")
	}
	if name == "" {
		return f.Messages().Get(0), nil
	}
	if p := string(f.Package()); p != "" {
		name = strings.TrimPrefix(name, p+".")
	}
	var at protoreflect.MessageDescriptor
	list := f.Messages()
	for step := range strings.SplitSeq(name, ".") {
		if at = list.ByName(protoreflect.Name(step)); at == nil {
			return nil, fmt.Errorf("there is no message %s", name)
		}
		list = at.Messages()
	}
	return at, nil
}

// descend follows a message's index through a file.
func descend(f protoreflect.FileDescriptor, index []int) (protoreflect.MessageDescriptor, error) {
	var at protoreflect.MessageDescriptor
	list := f.Messages()
	for _, i := range index {
		if i >= list.Len() {
			return nil, fmt.Errorf("has no message %v", index)
		}
		at = list.Get(i)
		list = at.Messages()
	}
	return at, nil
}
