// Command tlog-fsck checks a tiled transparency log, and signed notes, with the reference Go packages.
//
//	tlog-fsck log DIR VKEY_FILE ORIGIN      rebuild the log in DIR from its entries; compare every tile and the root
//	tlog-fsck note NOTE_FILE VKEY_FILE...   verify a signed note; every key given must have signed it
//
// Exit code 0: everything is as it must be. 1: it is not, with the reason on standard error. 2: wrong usage.
//
// Tessera's own fsck command reports corruption in its log output and exits 0. This one wraps its package, and adds
// what the package leaves out: a file longer than it should be, a bundle shorter than it should be, and the case where
// more tiles are wrong than there are workers, in which the package waits for ever.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

const (
	tileWidth = 256
	hashSize  = 32
	workers   = 4
)

var errUsage = errors.New("usage: tlog-fsck log DIR VKEY_FILE ORIGIN | tlog-fsck note NOTE_FILE VKEY_FILE...")

func main() {
	flag.Parse()
	err := run(context.Background(), flag.Args())
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "tlog-fsck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 4 && args[0] == "log":
		return checkLog(ctx, args[1], args[2], args[3])
	case len(args) >= 3 && args[0] == "note":
		return checkNote(args[1], args[2:])
	}
	return errUsage
}

func readVerifier(path string) (note.Verifier, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return fnote.NewVerifier(strings.TrimSuffix(string(text), "\n"))
}

func checkNote(path string, keyPaths []string) error {
	message, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var verifiers []note.Verifier
	for _, keyPath := range keyPaths {
		verifier, err := readVerifier(keyPath)
		if err != nil {
			return fmt.Errorf("%s: %w", keyPath, err)
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open(message, note.VerifierList(verifiers...))
	if err != nil {
		return err
	}
	if len(opened.Sigs) != len(verifiers) {
		return fmt.Errorf("%d of %d keys signed the note", len(opened.Sigs), len(verifiers))
	}
	fmt.Printf("note of %d bytes, %d signatures verified\n", len(opened.Text), len(opened.Sigs))
	return nil
}

func checkLog(ctx context.Context, dir, keyPath, origin string) error {
	verifier, err := readVerifier(keyPath)
	if err != nil {
		return fmt.Errorf("%s: %w", keyPath, err)
	}
	source := &strictFetcher{files: client.FileFetcher{Root: dir}, started: make(chan struct{})}
	checker := fsck.New(origin, verifier, source, hashBundle, fsck.Opts{N: workers})
	done := make(chan error, 1)
	go func() {
		defer func() {
			if reason := recover(); reason != nil {
				done <- fmt.Errorf("fsck panicked: %v", reason)
			}
		}()
		done <- checker.Check(ctx)
	}()
	if err := wait(done, source.started, checker); err != nil {
		return err
	}
	fmt.Println("log is intact")
	return nil
}

// wait returns what Check returns. A worker that finds a wrong tile stops, and Check waits for ever once all of them
// have stopped; so the state of the ranges is looked at as well.
func wait(done <-chan error, started <-chan struct{}, checker *fsck.Fsck) error {
	select {
	case err := <-done:
		return err
	case <-started:
	}
	for ticks := 0; ; {
		select {
		case err := <-done:
			return err
		case <-time.After(50 * time.Millisecond):
		}
		broken := brokenRange(checker.Status())
		if broken == "" {
			continue
		}
		if ticks++; ticks > 20 {
			return errors.New(broken)
		}
	}
}

func brokenRange(status fsck.Status) string {
	for level, ranges := range status.TileRanges {
		for _, r := range ranges {
			if r.State == fsck.Invalid || r.State == fsck.FetchError {
				return fmt.Sprintf("%d hash tiles of level %d from index %d on are wrong or missing", r.N, level, r.First)
			}
		}
	}
	return ""
}

func hashBundle(data []byte) ([][]byte, error) {
	bundle := &api.EntryBundle{}
	if err := bundle.UnmarshalText(data); err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(bundle.Entries))
	for _, entry := range bundle.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

// strictFetcher reads a log's files and refuses those of a wrong length: a partial tile or bundle has exactly the width
// in its name, or is the full one that took its place.
type strictFetcher struct {
	files   client.FileFetcher
	once    sync.Once
	started chan struct{}
}

func (f *strictFetcher) ReadCheckpoint(ctx context.Context) ([]byte, error) {
	return f.files.ReadCheckpoint(ctx)
}

func (f *strictFetcher) ReadTile(ctx context.Context, level, index uint64, partial uint8) ([]byte, error) {
	data, err := f.files.ReadTile(ctx, level, index, partial)
	if err != nil {
		return nil, err
	}
	if len(data) != width(partial)*hashSize && len(data) != tileWidth*hashSize {
		return nil, fmt.Errorf("tile level %d index %d has %d bytes", level, index, len(data))
	}
	return data, nil
}

func (f *strictFetcher) ReadEntryBundle(ctx context.Context, index uint64, partial uint8) ([]byte, error) {
	f.once.Do(func() { close(f.started) })
	data, err := f.files.ReadEntryBundle(ctx, index, partial)
	if err != nil {
		return nil, err
	}
	hashes, err := hashBundle(data)
	if err != nil {
		return nil, fmt.Errorf("entry bundle %d: %w", index, err)
	}
	if len(hashes) != width(partial) && len(hashes) != tileWidth {
		return nil, fmt.Errorf("entry bundle %d has %d entries, not %d", index, len(hashes), width(partial))
	}
	return data, nil
}

func width(partial uint8) int {
	if partial == 0 {
		return tileWidth
	}
	return int(partial)
}
