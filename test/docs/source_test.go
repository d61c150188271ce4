package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// source is what files of the code declare.
type source struct {
	constants []constant
	structs   map[string][]string // exported types with JSON names, by type
}

// constant is a text constant.
type constant struct {
	name, kind, value string // kind is its type; "" for none
}

// readSource reads Go files, named from the root of the repository.
func readSource(t *testing.T, files ...string) source {
	t.Helper()
	s := source{structs: map[string][]string{}}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				s.note(gen)
			}
		}
	}
	return s
}

func (s *source) note(gen *ast.GenDecl) {
	for _, spec := range gen.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			if gen.Tok == token.CONST {
				s.noteConstant(spec)
			}
		case *ast.TypeSpec:
			fields, ok := spec.Type.(*ast.StructType)
			if names := jsonNames(fields); ok && spec.Name.IsExported() && len(names) > 0 {
				s.structs[spec.Name.Name] = names
			}
		}
	}
}

func (s *source) noteConstant(spec *ast.ValueSpec) {
	kind := ""
	if id, ok := spec.Type.(*ast.Ident); ok {
		kind = id.Name
	}
	for i, value := range spec.Values {
		lit, ok := value.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			continue
		}
		if text, err := strconv.Unquote(lit.Value); err == nil {
			s.constants = append(s.constants, constant{spec.Names[i].Name, kind, text})
		}
	}
}

func jsonNames(fields *ast.StructType) []string {
	if fields == nil {
		return nil
	}
	var names []string
	for _, f := range fields.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// of returns the constants of a type.
func (s source) of(t *testing.T, kind string) []string {
	t.Helper()
	var list []string
	for _, c := range s.constants {
		if c.kind == kind {
			list = append(list, c.value)
		}
	}
	if len(list) == 0 {
		t.Errorf("no constant of type %s was found: this test shows nothing", kind)
	}
	return list
}

// matching returns the names of every file of a package but its tests.
func matching(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			list = append(list, filepath.Join(dir, filepath.Base(f)))
		}
	}
	return list
}
