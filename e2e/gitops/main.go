// Command gitops judges bindings as those do who wait for them: kstatus, which Helm 4 and Flux ask, and Argo CD with its own
// settings, health and action code and the argocd-cm of examples/argocd.
//
//	gitops ARGOCD_CM FOLDER
//
// Every file of the folder is a binding whose annotations say what is expected. One line for each; the exit code is 1 when
// one differs.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const (
	wantKstatus = "expected/kstatus"
	wantArgo    = "expected/argo"
	wantMessage = "expected/argo-message"
	syncNow     = "ennote.io/sync"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: gitops ARGOCD_CM FOLDER"))
	}
	logrus.SetLevel(logrus.WarnLevel)
	overrides, err := read(os.Args[1])
	fail(err)
	files, err := filepath.Glob(filepath.Join(os.Args[2], "*.yaml"))
	fail(err)
	if len(files) == 0 {
		fail(fmt.Errorf("%s holds no binding", os.Args[2]))
	}
	wrong := 0
	for _, file := range files {
		line, err := judge(file, overrides)
		if err != nil {
			wrong++
			line = "WRONG  " + line + ": " + err.Error()
		} else {
			line = "ok     " + line
		}
		fmt.Println(line)
	}
	fmt.Printf("%d bindings, %d judged otherwise than expected\n", len(files), wrong)
	if wrong > 0 {
		os.Exit(1)
	}
}

// read gives the customizations of a ConfigMap argocd-cm, parsed by Argo CD itself.
func read(file string) (lua.ResourceHealthOverrides, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var config corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return nil, err
	}
	// As the one that it is laid over, without which Argo CD does not see it.
	config.Namespace = "argocd"
	config.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	overrides, err := settings.NewSettingsManager(ctx, fake.NewClientset(&config), "argocd").GetResourceOverrides()
	return lua.ResourceHealthOverrides(overrides), err
}

func judge(file string, overrides lua.ResourceHealthOverrides) (string, error) {
	name := filepath.Base(file)
	text, err := os.ReadFile(file)
	if err != nil {
		return name, err
	}
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		return name, err
	}
	binding := &unstructured.Unstructured{}
	if err := binding.UnmarshalJSON(json); err != nil {
		return name, err
	}
	waited, err := status.Compute(binding)
	if err != nil {
		return name, err
	}
	argo, err := health.GetResourceHealth(binding, overrides)
	if err != nil {
		return name, err
	}
	if argo == nil {
		return name, fmt.Errorf("Argo CD finds no health script for it")
	}
	line := fmt.Sprintf("%-32s %-12s %-12s %s", name, waited.Status, argo.Status, argo.Message)
	for key, got := range map[string]string{
		wantKstatus: waited.Status.String(), wantArgo: string(argo.Status), wantMessage: argo.Message,
	} {
		if want := binding.GetAnnotations()[key]; want != got {
			return line, fmt.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	return line, refresh(binding, lua.VM{ResourceOverrides: overrides})
}

// refresh runs the action as the button in Argo CD does: only the annotation may change, and nothing of a suspended binding.
func refresh(binding *unstructured.Unstructured, vm lua.VM) error {
	discovery, err := vm.GetResourceActionDiscovery(binding)
	if err != nil {
		return err
	}
	actions, err := vm.ExecuteResourceActionDiscovery(binding, discovery)
	if err != nil {
		return err
	}
	suspended, _, err := unstructured.NestedBool(binding.Object, "spec", "suspend")
	if err != nil {
		return err
	}
	if len(actions) != 1 || actions[0].Name != "refresh" || actions[0].Disabled != suspended {
		return fmt.Errorf("its actions are %+v", actions)
	}
	action, err := vm.GetResourceAction(binding, "refresh")
	if err != nil {
		return err
	}
	changed, err := vm.ExecuteResourceAction(binding.DeepCopy(), action.ActionLua, nil)
	if err != nil {
		return err
	}
	if len(changed) != 1 || changed[0].K8SOperation != lua.PatchOperation {
		return fmt.Errorf("refresh changes %+v", changed)
	}
	after := changed[0].UnstructuredObj
	annotations := after.GetAnnotations()
	if annotations[syncNow] == "" || annotations[syncNow] == binding.GetAnnotations()[syncNow] {
		return fmt.Errorf("refresh does not set %s", syncNow)
	}
	delete(annotations, syncNow)
	before := binding.DeepCopy()
	rest := before.GetAnnotations()
	delete(rest, syncNow)
	before.SetAnnotations(rest)
	after.SetAnnotations(annotations)
	if !reflect.DeepEqual(before.Object, after.Object) {
		return fmt.Errorf("refresh changes more than %s: %v", syncNow, after.Object)
	}
	return nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
