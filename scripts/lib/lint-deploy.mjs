// Checks objects of kinds that are not Kubernetes' own against the schemas of their operators.
// usage: lint-deploy.mjs FOLDER-OF-PACKAGES OBJECTS.json
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const packages = {
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "keda.sh": "@kubernetes-models/keda",
};

const objects = JSON.parse(readFileSync(file, "utf8"));
let faults = 0;
for (const object of objects) {
  const { apiVersion, kind } = object;
  try {
    const known = packages[apiVersion.split("/")[0]];
    if (!known) throw new Error("nobody here knows this kind");
    const path = resolve(folder, "node_modules", known, apiVersion, `${kind}.js`);
    const models = await import(pathToFileURL(path));
    new models[kind](object).validate();
  } catch (error) {
    faults += 1;
    console.log(`${file}: ${kind} ${object.metadata.name}: ${error.message}`);
  }
}
console.log(`${file}: ${objects.length - faults} of ${objects.length} objects are as their operators want them`);
process.exit(faults === 0 && objects.length > 0 ? 0 : 1);
