package protobuf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A shape is a message that is written, and the text that describes it.
type shape struct {
	name   string
	fields []*shapeField
	index  []int // of the message in its file

	reserved [][2]protowire.Number // numbers of fields that are gone, the second one included
}

// A shapeField is one field of a shape.
type shapeField struct {
	name    string
	column  string // the column's name, as it is
	typ     arrow.DataType
	kind    protoreflect.Kind // of the value, or of an element
	message *shape            // of a message
	null    bool              // may be null
	list    bool
	key     protoreflect.Kind // of a map; 0 for what is none
	number  protowire.Number
}

// shapeOf returns the message for columns, or all that is wrong with them.
func shapeOf(name string, fields []arrow.Field) (*shape, error) {
	s := &shape{name: name}
	var errs []error
	taken := map[string]string{}
	for _, f := range fields {
		sf := &shapeField{name: legal(f.Name), column: f.Name, null: f.Nullable}
		json := jsonName(sf.name)
		if other, ok := taken[json]; ok {
			errs = append(errs, fmt.Errorf("columns %q and %q would have the same name", other, f.Name))
			continue
		}
		taken[json] = f.Name
		if err := sf.set(f.Type); err != nil {
			errs = append(errs, fmt.Errorf("column %q: %w", f.Name, err))
			continue
		}
		s.fields = append(s.fields, sf)
	}
	for _, f := range s.fields { // a message must not be called as a field is
		for f.message != nil && slices.ContainsFunc(s.fields, func(o *shapeField) bool {
			return o.name == f.message.name || o != f && o.message != nil && o.message.name == f.message.name
		}) {
			f.message.name += "_"
		}
	}
	return s, errors.Join(errs...)
}

// set sets what follows from a type.
func (f *shapeField) set(t arrow.DataType) error {
	f.typ = t
	switch t := t.(type) {
	case *arrow.MapType:
		key, ok := kindOf(t.KeyType())
		if !ok || key == protoreflect.FloatKind || key == protoreflect.DoubleKind || key == protoreflect.BytesKind || key == protoreflect.MessageKind {
			return fmt.Errorf("a map whose keys are %v is not written as Protobuf", t.KeyType())
		}
		f.key = key
		return f.value(t.ItemType())
	case arrow.ListLikeType:
		f.list = true
		return f.value(t.Elem())
	case *arrow.DictionaryType:
		if _, ok := kindOf(t.ValueType); !ok {
			return fmt.Errorf("%v is not written as Protobuf", t)
		}
		return f.value(t.ValueType)
	}
	return f.value(t)
}

// value sets what follows from the type of a value that is not repeated.
func (f *shapeField) value(t arrow.DataType) error {
	if s, ok := t.(*arrow.StructType); ok {
		below, err := shapeOf(camel(f.name), s.Fields())
		f.message, f.kind = below, protoreflect.MessageKind
		return err
	}
	k, ok := kindOf(t)
	if f.kind = k; !ok {
		return fmt.Errorf("%v is not written as Protobuf", t)
	}
	return nil
}

// kindOf returns the kind of a type that holds no other one; timestamps are
// messages.
func kindOf(t arrow.DataType) (protoreflect.Kind, bool) {
	switch t.ID() {
	case arrow.BOOL:
		return protoreflect.BoolKind, true
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.DATE32, arrow.DATE64:
		return protoreflect.Int32Kind, true
	case arrow.INT64:
		return protoreflect.Int64Kind, true
	case arrow.UINT8, arrow.UINT16, arrow.UINT32:
		return protoreflect.Uint32Kind, true
	case arrow.UINT64:
		return protoreflect.Uint64Kind, true
	case arrow.FLOAT16, arrow.FLOAT32:
		return protoreflect.FloatKind, true
	case arrow.FLOAT64:
		return protoreflect.DoubleKind, true
	case arrow.STRING, arrow.LARGE_STRING:
		return protoreflect.StringKind, true
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY:
		return protoreflect.BytesKind, true
	case arrow.TIMESTAMP:
		return protoreflect.MessageKind, true
	}
	return 0, false
}

// legal returns a name with _ in place of what Protobuf does not allow.
func legal(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	if len(b) == 0 || b[0] >= '0' && b[0] <= '9' {
		b = append([]byte{'x'}, b...)
	}
	return string(b)
}

// jsonName returns the name in JSON, of which no two may be the same.
func jsonName(name string) string {
	var b []byte
	up := false
	for i := range len(name) {
		c := name[i]
		if c == '_' {
			up = true
			continue
		}
		if up && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		b, up = append(b, c), false
	}
	return string(b)
}

// camel returns the name of the message of a field.
func camel(name string) string {
	s := jsonName("_" + name)
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = "X" + s
	}
	return s
}

// number gives the fields their numbers: those of old where it has a field of the
// same name and type, new ones otherwise. It returns the columns that had none.
func (s *shape) number(old protoreflect.MessageDescriptor) (misfits []string) {
	last := protowire.Number(0)
	var kept []protowire.Number
	if old != nil {
		for _, f := range s.fields {
			of := old.Fields().ByName(protoreflect.Name(f.name))
			if of == nil || !f.fits(of) {
				continue
			}
			f.number = of.Number()
			kept = append(kept, f.number)
			if f.message != nil {
				m := of.Message()
				if f.key != 0 {
					m = of.MapValue().Message()
				}
				for _, name := range f.message.number(m) {
					misfits = append(misfits, f.column+"."+name)
				}
			}
		}
		last = s.reserve(old, kept)
	} else {
		for _, f := range s.fields {
			if f.message != nil {
				f.message.number(nil)
			}
		}
	}
	for _, f := range s.fields {
		if f.number != 0 {
			continue
		}
		if last++; last == protowire.FirstReservedNumber {
			last = protowire.LastReservedNumber + 1
		}
		f.number = last
		misfits = append(misfits, f.column)
		if f.message != nil && old != nil {
			f.message.number(nil)
		}
	}
	return misfits
}

// reserve keeps the numbers that old has, but for those that are kept, from being
// given to another field. It returns the last number that was ever used.
func (s *shape) reserve(old protoreflect.MessageDescriptor, kept []protowire.Number) (last protowire.Number) {
	for i := range old.Fields().Len() {
		n := old.Fields().Get(i).Number()
		if last = max(last, n); !slices.Contains(kept, n) {
			s.reserved = append(s.reserved, [2]protowire.Number{n, n})
		}
	}
	for i := range old.ReservedRanges().Len() {
		r := old.ReservedRanges().Get(i)
		s.reserved = append(s.reserved, [2]protowire.Number{r[0], r[1] - 1})
		if r[1]-1 < protowire.MaxValidNumber {
			last = max(last, r[1]-1)
		}
	}
	slices.SortFunc(s.reserved, func(a, b [2]protowire.Number) int { return int(a[0] - b[0]) })
	return last
}

// fits tells whether a field can be written as of is.
func (f *shapeField) fits(of protoreflect.FieldDescriptor) bool {
	switch {
	case of.IsMap() != (f.key != 0), of.IsList() != f.list:
		return false
	case of.IsMap():
		return of.MapKey().Kind() == f.key && f.sameValue(of.MapValue())
	case f.null && !f.list && !of.HasPresence():
		return false
	}
	return f.sameValue(of) && (!of.IsList() || of.IsPacked() || wireOf(f.kind) == protowire.BytesType)
}

func (f *shapeField) sameValue(of protoreflect.FieldDescriptor) bool {
	if of.Kind() != f.kind {
		return false
	}
	isTime := of.Message() != nil && of.Message().FullName() == timestampName
	return isTime == (f.kind == protoreflect.MessageKind && f.message == nil)
}

const timestampName = "google.protobuf.Timestamp"

// text writes the schema.
func (s *shape) text(name string) string {
	var b strings.Builder
	b.WriteString("syntax = \"proto3\";\n")
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		fmt.Fprintf(&b, "\npackage %s;\n", name[:i])
	}
	if s.hasTime() {
		b.WriteString("\nimport \"google/protobuf/timestamp.proto\";\n")
	}
	b.WriteByte('\n')
	s.append(&b, "")
	return b.String()
}

func (s *shape) hasTime() bool {
	return slices.ContainsFunc(s.fields, func(f *shapeField) bool {
		return f.kind == protoreflect.MessageKind && (f.message == nil || f.message.hasTime())
	})
}

// append writes the message, indented.
func (s *shape) append(b *strings.Builder, indent string) {
	fmt.Fprintf(b, "%smessage %s {\n", indent, s.name)
	for _, r := range s.reserved {
		if r[0] == r[1] {
			fmt.Fprintf(b, "%s  reserved %d;\n", indent, r[0])
		} else {
			fmt.Fprintf(b, "%s  reserved %d to %d;\n", indent, r[0], r[1])
		}
	}
	for _, f := range s.fields {
		typ := f.kind.String()
		switch {
		case f.message != nil:
			typ = f.message.name
		case f.kind == protoreflect.MessageKind:
			typ = timestampName
		}
		switch {
		case f.key != 0:
			typ = fmt.Sprintf("map<%s, %s>", f.key, typ)
		case f.list:
			typ = "repeated " + typ
		case f.null && f.kind != protoreflect.MessageKind:
			typ = "optional " + typ
		}
		fmt.Fprintf(b, "%s  %s %s = %d;\n", indent, typ, f.name, f.number)
	}
	for _, f := range s.fields {
		if f.message != nil {
			f.message.append(b, indent+"  ")
		}
	}
	fmt.Fprintf(b, "%s}\n", indent)
}
