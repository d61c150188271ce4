package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// The shipped files are the manual. For each: every key of the struct is there
// once, commented out, at its default, under a comment that documents it.
func TestShippedFiles(t *testing.T) {
	t.Run("gpuqd.toml", func(t *testing.T) {
		got := Default()
		blank(&got)
		checkShipped(t, "../../etc/gpuqd.toml", &got, func(key string) string {
			if IsLive(key) {
				return "Reload applies it."
			}
			return "Restart to apply."
		})
		if want := Default(); !reflect.DeepEqual(got, want) {
			t.Errorf("uncommented it gives\n%+v\nwant the defaults\n%+v", got, want)
		}
	})
	t.Run("gpuqctl.toml", func(t *testing.T) {
		got := DefaultClient()
		blank(&got)
		checkShipped(t, "../../etc/gpuqctl.toml", &got, func(string) string { return "No restart needed." })
		if want := DefaultClient(); !reflect.DeepEqual(got, want) {
			t.Errorf("uncommented it gives\n%+v\nwant the defaults\n%+v", got, want)
		}
	})
}

// blank makes every setting its zero value, so that only the file can bring the
// defaults back.
func blank[T any](settings *T) { *settings = *new(T) }

// keyLine is a commented key: no space after the #, unlike prose.
var keyLine = regexp.MustCompile(`^#([a-z_]+) = .+$`)

func checkShipped(t *testing.T, path string, into any, ending func(key string) string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Split(string(data), "\n")
	section, prose := "", ""
	present := map[string]int{}
	for i, line := range text {
		switch {
		case strings.HasPrefix(line, "["):
			section, prose = strings.Trim(line, "[]"), ""
		case keyLine.MatchString(line):
			text[i] = line[1:]
			key := dotted(section, keyLine.FindStringSubmatch(line)[1])
			present[key]++
			if want := ending(key); len(prose) < 80 || !strings.HasSuffix(prose, want) {
				t.Errorf("line %d: the comment of %s is %q: want its purpose, form and bounds, ending with %q", i+1, key, prose, want)
			}
			prose = ""
		case strings.HasPrefix(line, "# "), line == "#":
			prose = strings.TrimSpace(prose + strings.TrimPrefix(line, "#"))
		case line == "":
			prose = ""
		default:
			t.Errorf("line %d is no comment, key or section: %q", i+1, line)
		}
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("line %d has %d columns: wrap it at 80", i+1, n)
		}
	}
	for _, key := range knownKeys(reflect.TypeOf(into).Elem(), nil) {
		if present[key] != 1 {
			t.Errorf("the key %s is there %d times, want once", key, present[key])
		}
	}
	doc := decode(path, []byte(strings.Join(text, "\n")), into)
	if err := doc.join(nil); err != nil {
		t.Errorf("uncommented it does not decode:\n%v", err)
	}
}

// As shipped, with every key commented out, the files are the defaults.
func TestShippedFilesLoad(t *testing.T) {
	data, err := os.ReadFile("../../etc/gpuqd.toml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parse("gpuqd.toml", data, "gpu7")
	want := Default()
	want.Host.Name = "gpu7"
	if err != nil || !reflect.DeepEqual(cfg, want) {
		t.Errorf("gpuqd.toml gives %+v, %v", cfg, err)
	}
	client, err := LoadClient("../../etc/gpuqctl.toml")
	if err != nil || !reflect.DeepEqual(client, DefaultClient()) {
		t.Errorf("gpuqctl.toml gives %+v, %v", client, err)
	}
}

// What the defaults and the manual name as a credential, the unit loads.
func TestUnitLoadsTheCredentials(t *testing.T) {
	unit, err := os.ReadFile("../../systemd/gpuqd.service")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../etc/gpuqd.toml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"\$CREDENTIALS_DIRECTORY/([a-z_]+\.password)"`).FindAllSubmatch(manual, -1)
	names := map[string]bool{strings.TrimPrefix(Default().Broker.PasswordFile, credentialsPrefix): true}
	for _, m := range found {
		names[string(m[1])] = true
	}
	if len(names) != 3 {
		t.Errorf("defaults and manual name %v, want the broker's, the ledger's and Redis's", names)
	}
	for name := range names {
		if line := "\nLoadCredential=" + name + ":/etc/gpuqd/" + name + "\n"; !strings.Contains(string(unit), line) {
			t.Errorf("the unit lacks %q", strings.TrimSpace(line))
		}
	}
}

// Every field can be set from a file: a field without a tag, or of a type that
// has no form, would be noticed only by who tries to set it.
func TestEveryFieldHasATagAndAForm(t *testing.T) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if tag := field.Tag.Get("toml"); !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(tag) {
				t.Errorf("%s.%s has the tag %q", v.Type(), field.Name, tag)
			}
			if v.Field(i).Kind() == reflect.Struct {
				walk(v.Field(i))
				continue
			}
			if form(v.Field(i)) == "" {
				t.Errorf("%s.%s has no form", v.Type(), field.Name)
			}
		}
	}
	walk(reflect.ValueOf(Default()))
	walk(reflect.ValueOf(DefaultClient()))
}

// The manual states the bounds that the checks hold: each key's bound in a
// message of a value past it is looked for in the key's comment.
func TestShippedFileStatesTheBounds(t *testing.T) {
	data, err := os.ReadFile("../../etc/gpuqd.toml")
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	section, prose := "", ""
	for _, line := range strings.Split(string(data), "\n") {
		if m := keyLine.FindStringSubmatch(line); m != nil {
			comments[dotted(section, m[1])] = prose
			prose = ""
		} else if strings.HasPrefix(line, "[") {
			section, prose = strings.Trim(line, "[]"), ""
		} else {
			prose += " " + strings.TrimPrefix(line, "# ")
		}
	}
	low, high := Default(), Default()
	setNumbers(reflect.ValueOf(&low).Elem(), -1)
	setNumbers(reflect.ValueOf(&high).Elem(), 1<<62)
	bounds := regexp.MustCompile(`is not between (\S+) and (\S+)$`)
	found := 0
	for _, cfg := range []Config{low, high} {
		var check checker
		cfg.check(&check)
		for _, p := range check.problems {
			m := bounds.FindStringSubmatch(p.Text)
			if m == nil {
				continue
			}
			found++
			for _, bound := range m[1:] {
				if !stated(comments[p.Key], p.Key, bound) {
					t.Errorf("the comment of %s does not state the bound %s:\n%s", p.Key, bound, comments[p.Key])
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d bounds were checked", found)
	}
}

// stated reports whether a comment has the bound as a word.
func stated(comment, key, bound string) bool {
	if key == "lease.renew" && bound == "8h" {
		return strings.Contains(comment, "a third of ttl") // 8h where ttl is at its longest
	}
	return regexp.MustCompile(`(^|[^0-9a-z])` + regexp.QuoteMeta(bound) + `($|[^0-9a-z])`).MatchString(comment)
}

// setNumbers sets every duration and number to n.
func setNumbers(v reflect.Value, n int64) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			setNumbers(f, n)
		case f.CanInt():
			f.SetInt(n)
		case f.CanUint():
			f.SetUint(uint64(n))
		}
	}
}
