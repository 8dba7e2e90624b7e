package mount

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// Options say where and how to mount.
type Options struct {
	Dir        string   // made when it is absent; else it must be an empty directory
	Space      string   // shows this one space as Dir itself; "" shows all, each as a directory
	AllowOther bool     // other accounts of the machine may enter too, as far as the modes let them
	ExtraOpts  []string // as given with -o: each a list of options with commas between them
	// Still, if not nil, is held while the daemon itself uses the mount, for moments: who holds it may unmount without finding it in use
	// by that.
	Still *sync.Mutex
	Ready func() // called once the mount can be used; may be nil
	Log   *slog.Logger
}

// settings are Options with -o taken apart.
type settings struct {
	allowOther, readOnly, noExec bool
}

// CheckOptions returns the error that Serve would return for these options given with -o.
func CheckOptions(lists []string) error {
	_, err := parseOptions(lists)
	return err
}

// parseOptions understands the options of mount(8) that mean something here, and those that ask for what is the case
// anyway or that only mount(8) itself reads. A later option overrides an earlier one.
func parseOptions(lists []string) (settings, error) {
	var s settings
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			if err := s.set(strings.TrimSpace(opt)); err != nil {
				return settings{}, err
			}
		}
	}
	return s, nil
}

func (s *settings) set(opt string) error {
	switch opt {
	case "allow_other":
		s.allowOther = true
	case "ro":
		s.readOnly = true
	case "rw":
		s.readOnly = false
	case "noexec":
		s.noExec = true
	case "exec":
		s.noExec = false
	case "", "defaults", "default_permissions", "nosuid", "nodev", "noatime", "nodiratime", "relatime", "async":
	case "auto", "noauto", "user", "users", "nouser", "owner", "nofail", "_netdev":
	case "suid", "dev":
		return fmt.Errorf("option %q is refused: files of others must not bring rights or devices", opt)
	case "allow_root":
		return fmt.Errorf("option %q is not known; allow_other lets root in too", opt)
	default:
		if strings.HasPrefix(opt, "x-") || strings.HasPrefix(opt, "comment=") {
			return nil
		}
		return fmt.Errorf("option %q is not known", opt)
	}
	return nil
}
