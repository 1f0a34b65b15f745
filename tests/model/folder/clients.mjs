// transformers.js: the vectors of texts, as clients.py gives them. node clients.mjs JOBS.json, beside node_modules.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
const found = [];
for (const job of JSON.parse(readFileSync(process.argv[2], "utf-8"))) {
  env.localModelPath = dirname(job.folder);
  const embed = await pipeline("feature-extraction", basename(job.folder), { dtype: job.dtype });
  const texts = job.texts.map((text) => job.prompt + text);
  found.push((await embed(texts, { pooling: "mean", normalize: true })).tolist());
}
console.log(JSON.stringify(found));
