package gateway

import (
	"errors"
	"fmt"
)

// The checks of this file look for media where llama-server looks for them, and
// nowhere else: in the content parts that oaicompat_chat_params_parse
// (server-common.cpp) and the conversions of server-chat.cpp read. Text, the
// arguments of tools and their schemas may hold any address.

// maxMessages bounds the messages of a chat and the parts of a message.
const maxMessages = 1 << 14

// mediaAddress accepts media that travel inside the request. llama-server fetches
// what begins with "http" (handle_media), possibly from an address that the client
// itself cannot reach, and would read a file where it is allowed to.
func mediaAddress(v jsonValue) error {
	switch {
	case v.hasPrefix("http"), v.hasPrefix("file:"):
		return errRemoteMedia
	case !v.isString() && !v.isNull():
		return errors.New("must be a string")
	}
	return nil
}

// addressObject accepts {"url": …} and {"data": …}.
func addressObject(v jsonValue) error {
	if v.isString() {
		return mediaAddress(v) // as some clients have it
	}
	return object(fields{"url": mediaAddress, "data": mediaAddress})(v)
}

// messages accepts those of a chat.
func messages(v jsonValue) error {
	return list(maxMessages, object(fields{"content": chatContent, "tool_calls": list(maxMessages, anything)}))(v)
}

// chatContent accepts a string or the parts of a chat message.
func chatContent(v jsonValue) error {
	if !v.isArray() {
		return nil // llama-server rejects all but strings
	}
	return list(maxMessages, chatPart)(v)
}

// chatPart accepts one part of a message's content.
func chatPart(v jsonValue) error {
	kind, err := v.get("type")
	if err != nil || kind == nil {
		return err
	}
	switch kind.text() {
	case "image_url", "input_audio", "input_video", "video_url":
		return object(fields{"image_url": addressObject, "input_audio": addressObject, "input_video": addressObject, "video_url": addressObject})(v)
	}
	return nil
}

// responsesInput accepts the input of the Responses API: a string, or items with
// content parts.
func responsesInput(v jsonValue) error {
	if v.isString() {
		return nil
	}
	parts := func(v jsonValue) error {
		if !v.isArray() {
			return nil
		}
		return list(maxMessages, responsesPart)(v)
	}
	return list(maxMessages, object(fields{"content": parts, "output": parts}))(v)
}

// responsesPart accepts one part of an item. In an item that llama-server copies
// unchanged, the parts may have the types of a chat.
func responsesPart(v jsonValue) error {
	kind, err := v.get("type")
	if err != nil || kind == nil {
		return err
	}
	if kind.text() == "input_image" {
		return object(fields{"image_url": addressObject})(v)
	}
	return chatPart(v)
}

// anthropicMessages accepts those of Anthropic's API.
func anthropicMessages(v jsonValue) error {
	return list(maxMessages, object(fields{"content": anthropicContent(true)}))(v)
}

// anthropicContent accepts a string or blocks. The content of a tool's result is
// of the same kind, without further results in it.
func anthropicContent(results bool) check {
	return func(v jsonValue) error {
		if !v.isArray() {
			return nil
		}
		return list(maxMessages, func(block jsonValue) error {
			kind, err := block.get("type")
			if err != nil || kind == nil {
				return err
			}
			switch k := kind.text(); {
			case k == "image":
				return object(fields{"source": addressObject})(block)
			case k == "tool_result" && results:
				return object(fields{"content": anthropicContent(false)})(block)
			}
			return nil
		})(v)
	}
}

// tools accepts the tools of a chat, whose parameters are schemas that become part
// of a grammar: in "function" for OpenAI's chat, in the tool itself for its
// Responses API, as "input_schema" for Anthropic's.
func tools(v jsonValue) error {
	var budget schemaBudget
	schema := func(v jsonValue) error { return budget.measure(v, 0) }
	err := list(1024, object(fields{
		"function":     object(fields{"parameters": schema}),
		"parameters":   schema,
		"input_schema": schema,
	}))(v)
	if err != nil {
		return err
	}
	return nil
}

// responseFormat accepts OpenAI's response_format with a schema in one of its two
// places.
func responseFormat(v jsonValue) error {
	err := object(fields{"schema": checkSchema, "json_schema": object(fields{"schema": checkSchema})})(v)
	if err != nil {
		return fmt.Errorf("is not accepted: %w", err)
	}
	return nil
}
