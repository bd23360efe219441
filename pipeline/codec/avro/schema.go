package avro

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
)

// The types of a schema's text, with their keys in the usual order.
type (
	schemaRecord struct {
		Type   string        `json:"type"`
		Name   string        `json:"name"`
		Fields []schemaField `json:"fields"`
	}
	schemaField struct {
		Name    string          `json:"name"`
		Type    any             `json:"type"`
		Doc     string          `json:"doc,omitempty"`
		Default json.RawMessage `json:"default,omitempty"`
	}
	schemaItems struct {
		Type   string `json:"type"`
		Items  any    `json:"items,omitempty"`
		Values any    `json:"values,omitempty"`
	}
	schemaFixed struct {
		Type string `json:"type"`
		Name string `json:"name"`
		Size int    `json:"size"`
	}
	schemaLogical struct {
		Type    string `json:"type"`
		Logical string `json:"logicalType"`
	}
)

// schemaOf returns the text of the schema of records with these fields.
func schemaOf(name string, fields []arrow.Field) (string, error) {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part != legal(part) {
			return "", fmt.Errorf("name: %q is none that Avro allows", name)
		}
	}
	r, err := recordOf(name, name[strings.LastIndexByte(name, '.')+1:], fields)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(r)
	return string(text), err
}

// recordOf returns a record; types within it have names that begin with prefix.
func recordOf(name, prefix string, fields []arrow.Field) (*schemaRecord, error) {
	r := &schemaRecord{Type: "record", Name: name, Fields: []schemaField{}}
	taken := map[string]string{}
	for _, f := range fields {
		sf := schemaField{Name: legal(f.Name)}
		if other, ok := taken[sf.Name]; ok {
			return nil, fmt.Errorf("columns %q and %q would both be called %s", other, f.Name, sf.Name)
		}
		taken[sf.Name] = f.Name
		if sf.Name != f.Name {
			sf.Doc = f.Name
		}
		t, err := typeOf(f.Type, prefix+"_"+sf.Name)
		if err != nil {
			return nil, err
		}
		if sf.Type = t; f.Nullable && t != "null" {
			sf.Type, sf.Default = []any{"null", t}, json.RawMessage("null")
		}
		r.Fields = append(r.Fields, sf)
	}
	return r, nil
}

// legal returns a name with _ in place of what Avro does not allow.
func legal(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	if len(b) == 0 || b[0] >= '0' && b[0] <= '9' {
		b = append([]byte{'_'}, b...)
	}
	return string(b)
}

// typeOf returns the type of a column's values, whose own types have names that
// begin with name. newWriter has accepted it.
func typeOf(t arrow.DataType, name string) (any, error) {
	switch t := t.(type) {
	case *arrow.StructType:
		return recordOf(name, name, t.Fields())
	case *arrow.DictionaryType:
		return typeOf(t.ValueType, name)
	case *arrow.MapType:
		v, err := typeOf(t.ItemType(), name)
		if t.ItemField().Nullable && v != "null" {
			v = []any{"null", v}
		}
		return schemaItems{Type: "map", Values: v}, err
	case arrow.ListLikeType:
		items, err := typeOf(t.Elem(), name)
		return schemaItems{Type: "array", Items: items}, err
	case *arrow.FixedSizeBinaryType:
		return schemaFixed{"fixed", name, t.ByteWidth}, nil
	case *arrow.TimestampType:
		logical := [...]string{"timestamp-millis", "timestamp-millis", "timestamp-micros", "timestamp-nanos"}[t.Unit]
		if t.TimeZone == "" {
			logical = "local-" + logical
		}
		return schemaLogical{"long", logical}, nil
	}
	switch t.ID() {
	case arrow.NULL:
		return "null", nil
	case arrow.BOOL:
		return "boolean", nil
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.UINT8, arrow.UINT16:
		return "int", nil
	case arrow.INT64, arrow.UINT32, arrow.UINT64:
		return "long", nil
	case arrow.FLOAT16, arrow.FLOAT32:
		return "float", nil
	case arrow.FLOAT64:
		return "double", nil
	case arrow.STRING, arrow.LARGE_STRING:
		return "string", nil
	case arrow.BINARY, arrow.LARGE_BINARY:
		return "bytes", nil
	case arrow.DATE32, arrow.DATE64:
		return schemaLogical{"int", "date"}, nil
	}
	return nil, fmt.Errorf("%v is not written as Avro", t)
}
