//go:build tools

// Package tools keeps in go.mod what critest's test files import: they cannot be named by a tool directive.
package tools

import _ "sigs.k8s.io/cri-tools/pkg/validate"
