package job

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"
	"time"
)

// fullSpec has every field set to something other than its default and zero, but
// for the number of devices: gpu_memory is a part of one.
func fullSpec() Spec {
	return Spec{
		Command: []string{"python3", "train.py"}, Name: "resnet", Pool: "train", Priority: High, GPUs: 1,
		Workdir: "/data/run", Env: map[string]string{"A": "1", "B": "2"}, TimeLimit: Duration(time.Hour),
		Grace: Duration(time.Minute), MaxAttempts: 3, RetryOn: []int{75}, Backoff: []Duration{Duration(time.Second)},
		Key: "nightly", Expires: Duration(24 * time.Hour), Labels: map[string]string{"team": "vision", "x": "y"},
		MemoryMax: 16 << 30, TasksMax: 512, CPUWeight: 50,
		GPUMemory: 12 << 30, GPUModel: "H100", MinGPUMemory: 80 << 30, MinComputeCapability: "9.0",
	}
}

func TestFullSpecIsFullAndValid(t *testing.T) {
	spec := fullSpec()
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	full, plain := reflect.ValueOf(spec), reflect.ValueOf(DefaultSpec())
	for i := range full.NumField() {
		if name := full.Type().Field(i).Name; name != "GPUs" && reflect.DeepEqual(full.Field(i).Interface(), plain.Field(i).Interface()) {
			t.Errorf("%s is at its default: set it in fullSpec, so that the tests below see it", name)
		}
	}
}

// TestHashIsStable holds the hash to a value computed apart from this code over
// the JSON of the default spec: ledgers keep hashes across upgrades.
func TestHashIsStable(t *testing.T) {
	spec := DefaultSpec()
	spec.Command = []string{"train"}
	const want = "78d8afcaa340e4bd1ca10ac44a7f681f6ca5a486c1e08c08c78a24d66fda7079"
	if got := spec.Hash(); got != want {
		t.Errorf("%s, want %s: a job submitted again after the upgrade would be refused", got, want)
	}
}

// TestHashSeesEveryField changes each field, and each part of those that have
// parts, and looks for a new hash every time.
func TestHashSeesEveryField(t *testing.T) {
	seen := map[string]string{fullSpec().Hash(): "no change"}
	differs := func(what string, s Spec) {
		t.Helper()
		hash := s.Hash()
		if before, ok := seen[hash]; ok {
			t.Errorf("%s has the same hash as %s", what, before)
		}
		seen[hash] = what
	}
	for i := range reflect.TypeFor[Spec]().NumField() {
		name := reflect.TypeFor[Spec]().Field(i).Name
		for step := 1; ; step++ {
			spec := fullSpec()
			what, ok := change(t, reflect.ValueOf(&spec).Elem().Field(i), step)
			if !ok {
				break
			}
			differs(name+" "+what, spec)
		}
	}
}

// change makes one of several changes to a field, numbered from 1, and says
// which; false when there is none of that number.
func change(t *testing.T, v reflect.Value, step int) (what string, ok bool) {
	t.Helper()
	kinds := map[reflect.Kind]int{reflect.String: 2, reflect.Int: 2, reflect.Int64: 2, reflect.Slice: 3, reflect.Map: 4}
	if _, known := kinds[v.Kind()]; !known {
		t.Fatalf("fields of kind %s are new here: say how to change one", v.Kind())
	}
	if step > kinds[v.Kind()] {
		return "", false
	}
	if step == 1 {
		v.SetZero()
		return "unset", true
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "2")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()+1), v))
		if step == 2 {
			v.Set(reflect.Append(v, v.Index(0)))
			return "longer", true
		}
		change(t, v.Index(v.Len()-1), 2)
	case reflect.Map:
		changeMap(v.Interface().(map[string]string), step)
	}
	return []string{"", "", "changed", "changed in a part", "with a key less"}[step], true
}

func changeMap(m map[string]string, step int) {
	for name := range maps.Clone(m) {
		switch step {
		case 2:
			m[name] += "2"
		case 3:
			m[name+"2"] = m[name]
		case 4:
			delete(m, name)
		}
		if step != 2 {
			return
		}
	}
}

// TestHashIgnoresTheOrderOfKeys: a client in any language may write the same
// spec, in any order and spacing, with its defaults or without.
func TestHashIgnoresTheOrderOfKeys(t *testing.T) {
	texts := []string{
		`{"command":["x"],"env":{"A":"1","B":"2"},"labels":{"p":"q","r":"s"},"grace":"10s","gpus":1}`,
		`{"labels":{"r":"s","p":"q"},"gpus":1,"grace":"10000ms","env":{"B":"2","A":"1"},"command":["x"]}`,
		`{ "env" : {"B":"2",  "A":"\u0031"}, "command":["x"], "labels":{"r":"s","p":"q"} }`,
		`{"command":["x"],"env":{"A":"1","B":"2"},"labels":{"p":"q","r":"s"},"retry_on":[],"name":"","time_limit":"0s"}`,
	}
	hashes := make([]string, len(texts))
	for i, text := range texts {
		spec := DefaultSpec()
		if err := json.Unmarshal([]byte(text), &spec); err != nil {
			t.Fatal(err)
		}
		hashes[i] = spec.Hash()
		if hashes[i] != hashes[0] {
			t.Errorf("%s\nhashes differently from\n%s", text, texts[0])
		}
	}
}

// TestSpecSurvivesTheLedger: the hash that a document carries must fit the spec
// that reads back from it.
func TestSpecSurvivesTheLedger(t *testing.T) {
	for _, want := range []Spec{fullSpec(), DefaultSpec()} {
		doc, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Spec
		if err := DecodeStrict(doc, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) || got.Hash() != want.Hash() {
			t.Errorf("%s\nreads back as %+v", doc, got)
		}
	}
}
