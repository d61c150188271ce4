package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"gpuqd/daemon/job"

	"github.com/BurntSushi/toml"
)

// Bounds of a file of specs.
const (
	specsMax         = 100_000
	specFileBytesMax = 256 << 20
)

// placedSpec is a spec with where it stands in its file, for messages.
type placedSpec struct {
	where string // such as "line 3" or "[train]"
	spec  job.Spec
}

// readSpecs reads and checks all specs of a file: JSON lines if its first
// character is "{", else TOML. All that is wrong comes as one error.
func readSpecs(r io.Reader) ([]placedSpec, error) {
	data, err := io.ReadAll(io.LimitReader(r, specFileBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the specs: %w", err)
	}
	if len(data) > specFileBytesMax {
		return nil, fmt.Errorf("it has more than %d bytes: submit it in parts", specFileBytesMax)
	}
	parse := parseTOML
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		parse = parseJSONLines
	}
	specs, err := parse(data)
	errs := []error{err}
	for _, s := range specs {
		if err := s.spec.Validate(); err != nil {
			errs = append(errs, inPlace(s.where, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(specs) == 0 {
		return nil, errors.New("it has no spec: want a TOML table or a JSON line for each job")
	}
	if len(specs) > specsMax {
		return nil, fmt.Errorf("%d specs are more than %d: submit them in parts", len(specs), specsMax)
	}
	return specs, nil
}

// inPlace puts the place before each line of an error.
func inPlace(where string, err error) error {
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, fmt.Errorf("%s: %s", where, strings.TrimSuffix(line, "\n")))
	}
	return errors.Join(errs...)
}

func parseJSONLines(data []byte) ([]placedSpec, error) {
	var (
		specs []placedSpec
		errs  []error
		n     int
	)
	for line := range bytes.Lines(data) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		where := fmt.Sprintf("line %d", n)
		spec, err := decodeJSON(line)
		if err != nil {
			errs = append(errs, inPlace(where, err))
			continue
		}
		specs = append(specs, placedSpec{where: where, spec: spec})
	}
	return specs, errors.Join(errs...)
}

func decodeJSON(line []byte) (job.Spec, error) {
	spec := job.DefaultSpec()
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		return spec, fmt.Errorf("not a spec: %w: each line is one whole JSON object", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return spec, errors.New("something follows the JSON object: each line is one spec")
	}
	return spec, nil
}

// parseTOML reads a file that is one spec, or has one in each table.
func parseTOML(data []byte) ([]placedSpec, error) {
	var root map[string]toml.Primitive
	meta, err := toml.Decode(string(data), &root)
	if err != nil {
		return nil, fmt.Errorf("neither JSON lines nor TOML: %w", tomlError(err))
	}
	if meta.IsDefined("command") {
		spec := job.DefaultSpec()
		meta, err := toml.Decode(string(data), &spec)
		if err != nil {
			return nil, tomlError(err)
		}
		return []placedSpec{{where: "the spec", spec: spec}}, unknownKeys(meta)
	}
	var (
		specs []placedSpec
		errs  []error
	)
	for _, name := range topLevel(meta) {
		more, err := decodeTables(meta, name, root[name])
		specs = append(specs, more...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, unknownKeys(meta))
	return specs, errors.Join(errs...)
}

// topLevel returns the names at the top of the file, in its order.
func topLevel(meta toml.MetaData) []string {
	var names []string
	seen := map[string]bool{}
	for _, key := range meta.Keys() {
		if !seen[key[0]] {
			seen[key[0]] = true
			names = append(names, key[0])
		}
	}
	return names
}

// decodeTables reads [name], which names its job, or each [[name]].
func decodeTables(meta toml.MetaData, name string, body toml.Primitive) ([]placedSpec, error) {
	switch meta.Type(name) {
	case "Hash":
		spec := job.DefaultSpec()
		spec.Name = name
		if err := meta.PrimitiveDecode(body, &spec); err != nil {
			return nil, fmt.Errorf("[%s]: %w", name, err)
		}
		return []placedSpec{{where: "[" + name + "]", spec: spec}}, nil
	case "ArrayHash":
		var bodies []toml.Primitive
		if err := meta.PrimitiveDecode(body, &bodies); err != nil {
			return nil, fmt.Errorf("[[%s]]: %w", name, err)
		}
		var specs []placedSpec
		for i, body := range bodies {
			where := fmt.Sprintf("[[%s]] number %d", name, i+1)
			spec := job.DefaultSpec()
			if err := meta.PrimitiveDecode(body, &spec); err != nil {
				return specs, fmt.Errorf("%s: %w", where, err)
			}
			specs = append(specs, placedSpec{where: where, spec: spec})
		}
		return specs, nil
	}
	return nil, fmt.Errorf("%s stands outside of a table: put it under [name] or [[job]], or add a command for a file of one spec", name)
}

// unknownKeys reports keys that no spec has, once each.
func unknownKeys(meta toml.MetaData) error {
	found := map[string]bool{}
	for _, key := range meta.Undecoded() {
		found[key.String()] = true
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(found)) {
		errs = append(errs, fmt.Errorf("%s: there is no such key in a spec", key))
	}
	return errors.Join(errs...)
}

// tomlError makes a syntax error one line with its place.
func tomlError(err error) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
	}
	return err
}
