"""Asks several models at the same time through the client libraries of Python.

usage: clients.py URL MODEL...

Each answer is written as one line of JSON: the library, the way of asking, the model that
was asked for, the model that the answer names, and the text. An error of a library ends
the program.
"""

import concurrent.futures
import json
import sys

import anthropic
import openai
from langchain_openai import ChatOpenAI

QUESTION = "Hello"
MAX_TOKENS = 8
ROUNDS = 3
MESSAGES = [{"role": "user", "content": QUESTION}]

url, *models = sys.argv[1:]
openai_client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
anthropic_client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def openai_whole(model):
    answer = openai_client.chat.completions.create(
        model=model, messages=MESSAGES, temperature=0, max_tokens=MAX_TOKENS
    )
    return answer.model, answer.choices[0].message.content


def openai_stream(model):
    text, names = "", set()
    with openai_client.chat.completions.create(
        model=model, messages=MESSAGES, temperature=0, max_tokens=MAX_TOKENS, stream=True
    ) as stream:
        for chunk in stream:
            names.add(chunk.model)
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
    return " ".join(sorted(names)), text


def anthropic_text(message):
    return "".join(block.text for block in message.content if block.type == "text")


def anthropic_whole(model):
    answer = anthropic_client.messages.create(
        model=model, messages=MESSAGES, max_tokens=MAX_TOKENS, extra_body={"temperature": 0}
    )
    return answer.model, anthropic_text(answer)


def anthropic_stream(model):
    with anthropic_client.messages.stream(
        model=model, messages=MESSAGES, max_tokens=MAX_TOKENS, extra_body={"temperature": 0}
    ) as stream:
        answer = stream.get_final_message()
    return answer.model, anthropic_text(answer)


def langchain(model):
    return ChatOpenAI(
        base_url=url + "/v1",
        api_key="none",
        model=model,
        temperature=0,
        max_retries=0,
        max_tokens=MAX_TOKENS,
    )


def langchain_whole(model):
    answer = langchain(model).invoke(QUESTION)
    return answer.response_metadata["model_name"], answer.content


def langchain_stream(model):
    whole = None
    for chunk in langchain(model).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return whole.response_metadata["model_name"], whole.content


WAYS = [
    ("openai", "whole", openai_whole),
    ("openai", "stream", openai_stream),
    ("anthropic", "whole", anthropic_whole),
    ("anthropic", "stream", anthropic_stream),
    ("langchain", "whole", langchain_whole),
    ("langchain", "stream", langchain_stream),
]


def ask(library, way, function, model):
    answered, text = function(model)
    return {"library": library, "way": way, "asked": model, "answered": answered, "text": text}


with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
    asked = [
        threads.submit(ask, *way, model) for _ in range(ROUNDS) for way in WAYS for model in models
    ]
    for one in asked:
        print(json.dumps(one.result()))
