"""The openai client, unchanged: chat and completions, whole and streamed. Prints JSON."""

import json
import sys

import openai

base_url, model, prompt = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none")
messages = [{"role": "user", "content": "What is the capital of France?"}]

chat = client.chat.completions.create(model=model, messages=messages, temperature=0)
events = list(
    client.chat.completions.create(
        model=model,
        messages=messages,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
)
completion = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=24)
pieces = client.completions.create(
    model=model, prompt=prompt, temperature=0, max_tokens=24, stream=True
)
streamed = "".join(piece.choices[0].text for piece in pieces)
try:
    client.chat.completions.create(model="nobody", messages=messages)
    unknown = "answered"
except openai.NotFoundError as error:
    unknown = error.code
schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
bounded = client.chat.completions.create(
    model=model,
    messages=messages,
    temperature=0,
    max_completion_tokens=40,
    response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    logprobs=True,
    top_logprobs=2,
)
scored = client.completions.create(model=model, prompt=prompt, max_tokens=3, logprobs=1)
try:
    client.chat.completions.create(
        model=model,
        messages=messages,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
    )
    tools = "answered"
except openai.BadRequestError as error:
    tools = error.message
print(
    json.dumps(
        {
            "bounded": bounded.choices[0].message.content,
            "bounded_tokens": [
                [token.token, len(token.top_logprobs)]
                for token in bounded.choices[0].logprobs.content
            ],
            "bounded_count": bounded.usage.completion_tokens,
            "scored": scored.choices[0].logprobs.tokens,
            "scored_logprobs": scored.choices[0].logprobs.token_logprobs,
            "tools": tools,
            "models": [item.id for item in client.models.list()],
            "chat": chat.choices[0].message.content,
            "finish_reason": chat.choices[0].finish_reason,
            "usage": chat.usage.model_dump(include={"prompt_tokens", "completion_tokens"}),
            "chat_streamed": "".join(
                event.choices[0].delta.content or "" for event in events if event.choices
            ),
            "usage_streamed": events[-1].usage.model_dump(
                include={"prompt_tokens", "completion_tokens"}
            ),
            "completion": completion.choices[0].text,
            "completion_streamed": streamed,
            "unknown_model": unknown,
        }
    )
)
