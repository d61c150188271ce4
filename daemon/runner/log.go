package runner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// LogPath returns the path of the command's output. The file may not be there
// yet.
func (a *Attempt) LogPath() string { return a.path("output.log") }

// ReadLog returns up to max bytes of the output from offset on; nothing, without
// an error, at its end or where there is none yet.
func (a *Attempt) ReadLog(offset int64, max int) ([]byte, error) {
	if offset < 0 || max < 0 {
		return nil, fmt.Errorf("read log of attempt %s: offset %d, max %d: neither may be negative", a.key, offset, max)
	}
	file, err := os.Open(a.LogPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log of attempt %s: %w", a.key, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.NewSectionReader(file, offset, int64(max)))
	if err != nil {
		return nil, fmt.Errorf("read log of attempt %s: %w", a.key, err)
	}
	return data, nil
}

// LogTail returns the last bytes of the output, at most max.
func (a *Attempt) LogTail(max int) ([]byte, error) {
	info, err := os.Stat(a.LogPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log of attempt %s: %w", a.key, err)
	}
	return a.ReadLog(clampOffset(info.Size()-int64(max)), max)
}

func clampOffset(offset int64) int64 { return max(offset, 0) }

// ShimLogPath returns the path of what the shim says about itself.
func (a *Attempt) ShimLogPath() string { return a.path("shim.log") }
