// Package handler is log/slog over journald's native protocol.
//
// MESSAGE is the constant message followed by its attributes as key=value, since
// journalctl shows nothing else and a line must be readable by itself. Each
// attribute is a field, too: GPUQ_ and its key in upper case, with the groups that
// it is in before it, joined by _. So job_id=… in the line is GPUQ_JOB_ID=… to
// journalctl. A value that is long is cut in MESSAGE, never in its field.
package handler

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gpuqd/daemon/journald"
)

// shownBytesMax bounds a value in MESSAGE: a stack is not read there.
const shownBytesMax = 1000

// Handler sends records to a journald. It never waits, and returns no errors:
// the sender counts what was not taken.
type Handler struct {
	sender *journald.Sender
	level  slog.Leveler
	prefix string // of keys: the groups, each with a _ after it
	shown  string // of MESSAGE: attributes that every record has, each with a space before it
	fields []byte // the same as encoded fields
}

var _ slog.Handler = (*Handler)(nil)

// New returns a handler of records at level and above.
func New(sender *journald.Sender, level slog.Leveler) *Handler {
	return &Handler{sender: sender, level: level}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	e := entry{shown: append([]byte(r.Message), h.shown...), fields: append([]byte(nil), h.fields...)}
	r.Attrs(func(a slog.Attr) bool {
		e.add(h.prefix, a)
		return true
	})
	out := journald.Append(e.fields, "MESSAGE", e.shown)
	out = journald.Append(out, "PRIORITY", priority(r.Level))
	if r.PC != 0 {
		at, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		out = journald.Append(out, "CODE_FILE", at.File)
		out = journald.Append(out, "CODE_LINE", strconv.Itoa(at.Line))
		out = journald.Append(out, "CODE_FUNC", at.Function)
	}
	h.sender.Send(out) // what is not taken is counted there
	return nil
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	e := entry{shown: []byte(h.shown), fields: append([]byte(nil), h.fields...)}
	for _, a := range attrs {
		e.add(h.prefix, a)
	}
	more := *h
	more.shown, more.fields = string(e.shown), e.fields
	return &more
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	more := *h
	more.prefix += name + "_"
	return &more
}

// priority is what journald calls a level.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return journald.Err
	case l >= slog.LevelWarn:
		return journald.Warning
	case l >= slog.LevelInfo:
		return journald.Info
	}
	return journald.Debug
}

// entry is a record on its way to the journal.
type entry struct {
	shown  []byte // MESSAGE
	fields []byte // encoded, one for each attribute
}

// add takes an attribute in, or those of a group one by one.
func (e *entry) add(prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, one := range value.Group() {
			e.add(prefix, one)
		}
		return
	}
	if a.Key == "" {
		return // slog ignores it
	}
	key, text := prefix+a.Key, textOf(value)
	e.fields = journald.Append(e.fields, journald.Name("GPUQ_"+key), text)
	e.shown = append(e.shown, ' ')
	e.shown = append(e.shown, key...)
	e.shown = append(e.shown, '=')
	e.shown = appendShown(e.shown, text)
}

// textOf is a value as a field has it.
func textOf(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok && err != nil {
			return err.Error()
		}
		return fmt.Sprint(v.Any())
	}
	return v.String()
}

// appendShown appends a value as people read it: on one line, in quotes where it
// is not a single plain word.
func appendShown(to []byte, text string) []byte {
	if len(text) > shownBytesMax {
		text = strings.ToValidUTF8(text[:shownBytesMax], "") + "…"
	}
	plain := text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r)
	})
	if plain {
		return append(to, text...)
	}
	return strconv.AppendQuote(to, text)
}
