// Asks several models at the same time through the client libraries of npm.
//
// usage: node clients.mjs URL MODEL...
//
// It writes what clients.py writes.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import Anthropic from "@anthropic-ai/sdk";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const question = "Hello";
const maxTokens = 8;
const rounds = 3;
const messages = [{ role: "user", content: question }];

const [url, ...models] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const compatible = createOpenAICompatible({ name: "go-rocm", baseURL: url + "/v1" });

const openaiParameters = (model) => ({ model, messages, temperature: 0, max_tokens: maxTokens });
const anthropicParameters = (model) => ({ model, messages, temperature: 0, max_tokens: maxTokens });
const aiParameters = (model) => ({
  model: compatible(model),
  prompt: question,
  temperature: 0,
  maxOutputTokens: maxTokens,
  maxRetries: 0,
});
const langchain = (model) =>
  new ChatOpenAI({
    configuration: { baseURL: url + "/v1" },
    apiKey: "none",
    model,
    temperature: 0,
    maxRetries: 0,
    maxTokens,
  });

const anthropicText = (message) =>
  message.content
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("");

// ways has an async function for each library and way of asking. It returns the model that
// the answer names, and the text.
const ways = {
  openai: {
    async whole(model) {
      const answer = await openai.chat.completions.create(openaiParameters(model));
      return [answer.model, answer.choices[0].message.content];
    },
    async stream(model) {
      const names = new Set();
      let text = "";
      const stream = await openai.chat.completions.create({ ...openaiParameters(model), stream: true });
      for await (const chunk of stream) {
        names.add(chunk.model);
        text += chunk.choices[0]?.delta.content ?? "";
      }
      return [[...names].join(" "), text];
    },
  },
  anthropic: {
    async whole(model) {
      const answer = await anthropic.messages.create(anthropicParameters(model));
      return [answer.model, anthropicText(answer)];
    },
    async stream(model) {
      const answer = await anthropic.messages.stream(anthropicParameters(model)).finalMessage();
      return [answer.model, anthropicText(answer)];
    },
  },
  "ai-sdk": {
    async whole(model) {
      const answer = await generateText(aiParameters(model));
      return [answer.response.modelId, answer.text];
    },
    async stream(model) {
      const answer = streamText(aiParameters(model));
      const text = await answer.text;
      return [(await answer.response).modelId, text];
    },
  },
  langchain: {
    async whole(model) {
      const answer = await langchain(model).invoke(question);
      return [answer.response_metadata.model_name, answer.content];
    },
    async stream(model) {
      let whole;
      for await (const chunk of await langchain(model).stream(question)) {
        whole = whole === undefined ? chunk : whole.concat(chunk);
      }
      return [whole.response_metadata.model_name, whole.content];
    },
  },
};

for (let round = 0; round < rounds; round++) {
  const asked = [];
  for (const [library, functions] of Object.entries(ways)) {
    for (const [way, ask] of Object.entries(functions)) {
      for (const model of models) {
        asked.push(ask(model).then(([answered, text]) => ({ library, way, asked: model, answered, text })));
      }
    }
  }
  for (const answer of await Promise.all(asked)) {
    console.log(JSON.stringify(answer));
  }
}
