package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/elbo-stream/elbo/pipeline/config"
)

// checker is as much of JSON Schema as config.Schema uses; another keyword
// fails the test.
type checker struct{ defs map[string]any }

func (c checker) check(s map[string]any, v any, path string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, path+": "+fmt.Sprintf(format, args...)) }
	object, isObject := v.(map[string]any)
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for k := range s {
			if !yield(k) {
				return
			}
		}
	}) {
		arg := s[key]
		switch key {
		case "$schema", "title", "description", "default", "examples", "$defs":
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/$defs/")
			faults = append(faults, c.check(c.defs[name].(map[string]any), v, path)...)
		case "type":
			types, ok := arg.([]any)
			if !ok {
				types = []any{arg}
			}
			if !slices.ContainsFunc(types, func(t any) bool { return isType(t.(string), v) }) {
				fault("%v is no %v", v, types)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				fault("%v is not in %v", v, arg)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				fault("%q does not match %s", text, arg)
			}
		case "minimum":
			if n, ok := v.(float64); ok && n < arg.(float64) {
				fault("%v is too small", n)
			}
		case "minLength":
			if text, ok := v.(string); ok && float64(len(text)) < arg.(float64) {
				fault("too short")
			}
		case "minItems":
			if list, ok := v.([]any); ok && float64(len(list)) < arg.(float64) {
				fault("too few")
			}
		case "items":
			if list, ok := v.([]any); ok {
				for i, item := range list {
					faults = append(faults, c.check(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", path, i))...)
				}
			}
		case "properties", "additionalProperties":
			if isObject && key == "properties" {
				faults = append(faults, c.properties(s, object, path)...)
			} else if isObject && s["properties"] == nil {
				for k, item := range object {
					faults = append(faults, c.check(arg.(map[string]any), item, path+"."+k)...)
				}
			}
		case "required":
			for _, name := range arg.([]any) {
				if _, ok := object[name.(string)]; isObject && !ok {
					fault("%v is missing", name)
				}
			}
		case "anyOf", "oneOf":
			hold := 0
			for _, one := range arg.([]any) {
				if len(c.check(one.(map[string]any), v, path)) == 0 {
					hold++
				}
			}
			if hold == 0 || key == "oneOf" && hold != 1 {
				fault("%d of %s hold", hold, key)
			}
		default:
			fault("the keyword %q is not known to the test", key)
		}
	}
	return faults
}

func (c checker) properties(s, object map[string]any, path string) (faults []string) {
	if s["additionalProperties"] != false {
		return []string{path + ": additionalProperties is not false"}
	}
	for k, item := range object {
		prop, ok := s["properties"].(map[string]any)[k].(map[string]any)
		if !ok {
			faults = append(faults, path+": unknown property "+k)
			continue
		}
		faults = append(faults, c.check(prop, item, path+"."+k)...)
	}
	return faults
}

func isType(name string, v any) bool {
	switch x := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || name == "integer" && x == float64(int64(x))
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

// schemaFaults checks a YAML file against the schema.
func schemaFaults(t *testing.T, file []byte) []string {
	t.Helper()
	var closed int
	var schema map[string]any
	if err := json.Unmarshal(config.Schema(registry(&closed)), &schema); err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return []string{err.Error()}
	}
	asJSON, err := json.Marshal(doc)
	if err != nil {
		return []string{err.Error()}
	}
	var v any
	if err := json.Unmarshal(asJSON, &v); err != nil {
		t.Fatal(err)
	}
	return checker{schema["$defs"].(map[string]any)}.check(schema, v, "file")
}

func TestSchemaTakesGoodFiles(t *testing.T) {
	for file, text := range goodFiles(t) {
		text = strings.ReplaceAll(text, "1_000", "1000") // grouped digits are ours, not JSON's
		if faults := schemaFaults(t, []byte(text)); len(faults) > 0 {
			t.Errorf("%s:\n%s", file, strings.Join(faults, "\n"))
		}
	}
}

// TestSchemaRefusesWrongFiles: an editor sees the faults of shape and type; it
// cannot see variables, cross checks and what a program finds in a value.
func TestSchemaRefusesWrongFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	beyond := regexp.MustCompile(`^(variable-|secret-|size-|duration-|dead-letters-(missing|unused)|name-twice|validate|settings|build|` +
		`duplicate|merge|tag|key-not|two-doc|utf16|not-utf8|control|nul|whole-number-|number-nan|boolean|list-item-null|null-value|scalar-exp)`)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if beyond.MatchString(name) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(schemaFaults(t, data)) == 0 {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

func TestSchemaGolden(t *testing.T) {
	var closed int
	golden(t, "testdata/schema.json", config.Schema(registry(&closed)))
}
