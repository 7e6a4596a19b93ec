// Command supply-chain builds the image from scratch around static binaries, without Docker: an index of one image for each
// platform, as an OCI layout. Equal input gives equal bytes.
//
//	supply-chain image OUT EPOCH VERSION REVISION PLATFORM=BINARY...
//
// Prints the digest of the index, which is what a cluster pulls and what is signed. And for an attack on signatures:
//
//	supply-chain graft REPOSITORY DIGEST OTHER
//
// hangs all that hangs on the image DIGEST (signatures, attestations) on the image OTHER as well.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The user of the chart's podSecurityContext.
const user = "65532:65532"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "supply-chain:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) >= 6 && arguments[0] == "image":
		digest, err := write(arguments[1], arguments[2], arguments[3], arguments[4], arguments[5:])
		if err != nil {
			return err
		}
		fmt.Println(digest)
		return nil
	case len(arguments) == 4 && arguments[0] == "graft":
		return graft(arguments[1], arguments[2], arguments[3])
	}
	return fmt.Errorf("usage: supply-chain image OUT EPOCH VERSION REVISION PLATFORM=BINARY... | graft REPOSITORY DIGEST OTHER")
}

func write(out, epoch, version, revision string, binaries []string) (string, error) {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", fmt.Errorf("EPOCH is a number of seconds: %w", err)
	}
	created := time.Unix(seconds, 0).UTC()
	about := map[string]string{
		"org.opencontainers.image.title":    "ennote-agent",
		"org.opencontainers.image.source":   "https://github.com/ennote-io/ennote-agent",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.revision": revision,
		"org.opencontainers.image.created":  created.Format(time.RFC3339),
	}
	var images []mutate.IndexAddendum
	for _, each := range binaries {
		target, binary, found := strings.Cut(each, "=")
		if !found {
			return "", fmt.Errorf("%q is not PLATFORM=BINARY", each)
		}
		platform, err := v1.ParsePlatform(target)
		if err != nil {
			return "", err
		}
		image, err := around(binary, *platform, created, about)
		if err != nil {
			return "", fmt.Errorf("%s: %w", binary, err)
		}
		images = append(images, mutate.IndexAddendum{Add: plain{image}, Descriptor: v1.Descriptor{Platform: platform}})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), images...)
	index = mutate.Annotations(index, about).(v1.ImageIndex)
	if err := os.RemoveAll(out); err != nil {
		return "", err
	}
	folder, err := layout.Write(out, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return "", err
	}
	if err := folder.AppendIndex(index); err != nil {
		return "", err
	}
	digest, err := index.Digest()
	return digest.String(), err
}

// An image that is no artifact: without this, the index would call it one of its config's type, and clients look past those.
type plain struct{ v1.Image }

func (plain) ArtifactType() (string, error) { return "", nil }

// The image of one platform: one layer with one file.
func around(binary string, platform v1.Platform, created time.Time, about map[string]string) (v1.Image, error) {
	archive, err := archiveOf(binary, created)
	if err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }
	layer, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "e2e/supply-chain"},
	})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Created = v1.Time{Time: created}
	file.OS, file.Architecture, file.Variant = platform.OS, platform.Architecture, platform.Variant
	file.Config = v1.Config{User: user, Entrypoint: []string{"/ennote-agent"}, Cmd: []string{"run"}, WorkingDir: "/", Labels: about}
	return mutate.ConfigFile(image, file)
}

func archiveOf(binary string, created time.Time) ([]byte, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Name: "ennote-agent", Mode: 0o555, Size: int64(len(content)), ModTime: created, Format: tar.FormatUSTAR}
	if err := writer.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := writer.Write(content); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

func graft(repository, digest, other string) error {
	repo, err := name.NewRepository(repository, name.Insecure)
	if err != nil {
		return err
	}
	onto, err := remote.Head(repo.Digest(other))
	if err != nil {
		return err
	}
	hanging, err := remote.Referrers(repo.Digest(digest))
	if err != nil {
		return err
	}
	all, err := hanging.IndexManifest()
	if err != nil {
		return err
	}
	for _, each := range all.Manifests {
		image, err := remote.Image(repo.Digest(each.Digest.String()))
		if err != nil {
			return err
		}
		grafted := mutate.Subject(image, *onto).(v1.Image)
		to, err := grafted.Digest()
		if err != nil {
			return err
		}
		if err := remote.Write(repo.Digest(to.String()), grafted); err != nil {
			return err
		}
		fmt.Printf("%s of %s is %s of %s\n", each.Digest, digest, to, other)
	}
	return nil
}
