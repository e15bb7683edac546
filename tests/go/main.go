// The transparency log of Go's checksum database, golang.org/x/mod/sumdb, as a
// judge of ours. It shares no code with the library.
//
//	reference check <directory>    judges what the library wrote there
//	reference make <directory>     writes logs of its own there for the library
//
// A directory has work.json, notes, tiles and entry bundles. Where the text of
// Go and that of c2sp.org differ, it is translated here: the path of a tile has
// no height in it, and the first line of a checkpoint is the log's own.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// Work is what a directory holds, and what is to be said of it.
type Work struct {
	PrivateKey    string        `json:"private_key"`
	VerifierKey   string        `json:"verifier_key"`
	Origin        string        `json:"origin"`
	Checkpoints   []Checkpoint  `json:"checkpoints"`
	Trees         []Tree        `json:"trees"`
	Inclusions    []Inclusion   `json:"inclusions"`
	Consistencies []Consistency `json:"consistencies"`
	Paths         []Path        `json:"paths"`
}

// Checkpoint is a signed note in a file.
type Checkpoint struct {
	File string    `json:"file"`
	Size int64     `json:"size"`
	Root tlog.Hash `json:"root"`
	// Signatures by keys that Go does not know.
	Unknown int  `json:"unknown"`
	Good    bool `json:"good"`
}

// Tree is a tree with the directory that has its tiles.
type Tree struct {
	Directory string    `json:"directory"`
	Size      int64     `json:"size"`
	Root      tlog.Hash `json:"root"`
	Good      bool      `json:"good"`
}

// Inclusion is a proof of a leaf.
type Inclusion struct {
	Size  int64       `json:"size"`
	Root  tlog.Hash   `json:"root"`
	Index int64       `json:"index"`
	Leaf  tlog.Hash   `json:"leaf"`
	Path  []tlog.Hash `json:"path"`
	Good  bool        `json:"good"`
}

// Consistency is a proof that one tree comes from another.
type Consistency struct {
	Size    int64       `json:"size"`
	Root    tlog.Hash   `json:"root"`
	OldSize int64       `json:"old_size"`
	OldRoot tlog.Hash   `json:"old_root"`
	Proof   []tlog.Hash `json:"proof"`
	Good    bool        `json:"good"`
}

// Path is a tile and the path that it should have.
type Path struct {
	Path  string `json:"path"`
	Level int    `json:"level"`
	Index int64  `json:"index"`
	Width int    `json:"width"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: reference check|make <directory>")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "check":
		err = check(os.Args[2])
	case "make":
		err = makeLogs(os.Args[2])
	default:
		err = fmt.Errorf("no such command")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check compares every verdict of Go with the one that is expected, and prints
// how many there were of each kind.
func check(directory string) error {
	work, err := read(directory)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(work.VerifierKey)
	if err != nil {
		return err
	}
	if work.PrivateKey != "" {
		if err := checkPrivateKey(work.PrivateKey, verifier); err != nil {
			return err
		}
	}
	count := map[string]int{}
	agree := func(kind string, number int, good bool, err error) error {
		count[kind]++
		if good && err != nil {
			return fmt.Errorf("%s %d was refused: %v", kind, number, err)
		}
		if !good && err == nil {
			return fmt.Errorf("%s %d was accepted", kind, number)
		}
		return nil
	}
	for i, c := range work.Checkpoints {
		err := checkCheckpoint(directory, work.Origin, c, verifier)
		if err := agree("checkpoints", i, c.Good, err); err != nil {
			return err
		}
	}
	for i, t := range work.Trees {
		err := checkTree(filepath.Join(directory, t.Directory), t)
		if err := agree("trees", i, t.Good, err); err != nil {
			return err
		}
	}
	for i, p := range work.Inclusions {
		err := tlog.CheckRecord(p.Path, p.Size, p.Root, p.Index, p.Leaf)
		if err := agree("inclusions", i, p.Good, err); err != nil {
			return err
		}
		if p.Good {
			r := readTiles(filepath.Join(directory, "log"), p.Size, p.Root)
			own, err := tlog.ProveRecord(p.Size, p.Index, r)
			if err != nil || !same(own, p.Path) {
				return fmt.Errorf("inclusion %d is not the proof that Go makes of the tiles: %v", i, err)
			}
		}
	}
	for i, p := range work.Consistencies {
		err := tlog.CheckTree(p.Proof, p.Size, p.Root, p.OldSize, p.OldRoot)
		if err := agree("consistencies", i, p.Good, err); err != nil {
			return err
		}
		if p.Good {
			r := readTiles(filepath.Join(directory, "log"), p.Size, p.Root)
			own, err := tlog.ProveTree(p.Size, p.OldSize, r)
			if err != nil || !same(own, p.Proof) {
				return fmt.Errorf("consistency %d is not the proof that Go makes of the tiles: %v", i, err)
			}
		}
	}
	for _, p := range work.Paths {
		count["paths"]++
		tile := tlog.Tile{H: height, L: p.Level, N: p.Index, W: p.Width}
		if pathOf(tile) != p.Path {
			return fmt.Errorf("%s is not the path %s", p.Path, pathOf(tile))
		}
		back, err := tlog.ParseTilePath(tile.Path())
		if err != nil || back != tile {
			return fmt.Errorf("%s is not read: %v", p.Path, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(count)
}

func checkPrivateKey(text string, verifier note.Verifier) error {
	signer, err := note.NewSigner(text)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: "text\n"}, signer)
	if err != nil {
		return err
	}
	_, err = note.Open(signed, note.VerifierList(verifier))
	return err
}

// checkCheckpoint opens the note, reads the tree head in it, and sees that it is
// the one expected, under the signatures expected.
func checkCheckpoint(directory, origin string, c Checkpoint, verifier note.Verifier) error {
	text, err := os.ReadFile(filepath.Join(directory, c.File))
	if err != nil {
		return err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	if len(opened.Sigs) != 1 || len(opened.UnverifiedSigs) != c.Unknown {
		return fmt.Errorf("%d known and %d unknown signatures", len(opened.Sigs), len(opened.UnverifiedSigs))
	}
	rest := strings.TrimPrefix(opened.Text, origin+"\n")
	if rest == opened.Text {
		return fmt.Errorf("another origin")
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	if err != nil {
		return err
	}
	if tree.N != c.Size || tree.Hash != c.Root {
		return fmt.Errorf("another tree")
	}
	if string(tlog.FormatTree(tree)) != "go.sum database tree\n"+rest {
		return fmt.Errorf("another text than Go writes")
	}
	return nil
}

// checkTree reads every leaf through the tiles, which Go checks against the
// root, and compares it with the entry that it is the hash of.
func checkTree(directory string, t Tree) error {
	if t.Size == 0 {
		// Go has zeros for the root of the empty tree, and RFC 6962 has this.
		if t.Root != sha256.Sum256(nil) {
			return fmt.Errorf("%v is not the root of the empty tree", t.Root)
		}
		return nil
	}
	reader := readTiles(directory, t.Size, t.Root)
	root, err := tlog.TreeHash(t.Size, reader)
	if err != nil {
		return err
	}
	if root != t.Root {
		return fmt.Errorf("another root")
	}
	indexes := make([]int64, 0, t.Size)
	for i := int64(0); i < t.Size; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	leaves, err := reader.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for first := int64(0); first < t.Size; first += 1 << height {
		width := t.Size - first
		if width > 1<<height {
			width = 1 << height
		}
		tile := tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)}
		bundle, err := os.ReadFile(filepath.Join(directory, pathOf(tile)))
		if err != nil {
			return err
		}
		for i := int64(0); i < width; i++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("a bundle is cut short")
			}
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:length]) != leaves[first+i] {
				return fmt.Errorf("entry %d is not the one that was hashed", first+i)
			}
			bundle = bundle[length:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("a bundle does not end")
		}
	}
	return nil
}

func same(a, b []tlog.Hash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// pathOf is the path of a tile without its height, as c2sp.org/tlog-tiles has it.
func pathOf(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tile.H), "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

type tileFiles string

func (d tileFiles) Height() int { return height }

func (d tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(d), pathOf(tile)))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", pathOf(tile), len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func (d tileFiles) SaveTiles([]tlog.Tile, [][]byte) {}

func readTiles(directory string, size int64, root tlog.Hash) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tileFiles(directory))
}

func read(directory string) (*Work, error) {
	data, err := os.ReadFile(filepath.Join(directory, "work.json"))
	if err != nil {
		return nil, err
	}
	work := new(Work)
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return work, decoder.Decode(work)
}

func write(directory, path string, data []byte) error {
	path = filepath.Join(directory, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// makeLogs writes a log of Go's own making at each of the sizes that work.json
// asks for, with the entries that entry gives, and the proofs that it asks for.
func makeLogs(directory string) error {
	work, err := read(directory)
	if err != nil {
		return err
	}
	// Not a key for anything but this test, so it may always be the same one.
	seed := sha256.Sum256([]byte("a key for a test"))
	work.PrivateKey, work.VerifierKey, err = note.GenerateKey(bytes.NewReader(seed[:]), work.Origin)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(work.PrivateKey)
	if err != nil {
		return err
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	var last int64
	roots := map[int64]tlog.Hash{0: sha256.Sum256(nil)}
	for i := range work.Checkpoints {
		c := &work.Checkpoints[i]
		for n := last; n < c.Size; n++ {
			hashes, err := tlog.StoredHashes(n, entry(n), reader)
			if err != nil {
				return err
			}
			stored = append(stored, hashes...)
		}
		last = c.Size
		if c.Size > 0 {
			if roots[c.Size], err = tlog.TreeHash(c.Size, reader); err != nil {
				return err
			}
		}
		c.Root, c.Good = roots[c.Size], true
		tree := strings.TrimPrefix(string(tlog.FormatTree(tlog.Tree{N: c.Size, Hash: c.Root})), "go.sum database tree\n")
		text, err := note.Sign(&note.Note{Text: work.Origin + "\n" + tree}, signer)
		if err != nil {
			return err
		}
		if err := write(directory, c.File, text); err != nil {
			return err
		}
		// All tiles, to have the partial ones of this size and no other.
		for _, tile := range tlog.NewTiles(height, 0, c.Size) {
			if tile.W != 1<<height && int64(tile.N)<<height+int64(tile.W) != c.Size>>(height*tile.L) {
				continue
			}
			data, err := tlog.ReadTileData(tile, reader)
			if err != nil {
				return err
			}
			if err := write(directory, filepath.Join("log", pathOf(tile)), data); err != nil {
				return err
			}
		}
	}
	for i := range work.Inclusions {
		p := &work.Inclusions[i]
		p.Root, p.Leaf, p.Good = roots[p.Size], tlog.RecordHash(entry(p.Index)), true
		if p.Path, err = tlog.ProveRecord(p.Size, p.Index, reader); err != nil {
			return err
		}
	}
	for i := range work.Consistencies {
		p := &work.Consistencies[i]
		p.Root, p.OldRoot, p.Good = roots[p.Size], roots[p.OldSize], true
		if p.Proof, err = tlog.ProveTree(p.Size, p.OldSize, reader); err != nil {
			return err
		}
	}
	data, err := json.Marshal(work)
	if err != nil {
		return err
	}
	return write(directory, "work.json", data)
}

// entry is SHA-256 of the number's eight bytes.
func entry(number int64) []byte {
	var text [8]byte
	binary.BigEndian.PutUint64(text[:], uint64(number))
	hash := sha256.Sum256(text[:])
	return hash[:]
}
