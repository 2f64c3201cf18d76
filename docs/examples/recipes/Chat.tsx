import { useChat } from "@ai-sdk/react";
import { answers } from "./answers";

export function Chat({ id }: { id: string }) {
  const { messages, sendMessage, status, stop } = useChat({ id, transport: answers, resume: true });

  return (
    <>
      {messages.map(({ id, role, parts }) => (
        <p key={id}>
          {role}: {parts.map((part) => (part.type === "text" ? part.text : ""))}
        </p>
      ))}
      <form action={(form) => void sendMessage({ text: String(form.get("question")) })}>
        <input name="question" required />
        <button disabled={status !== "ready"}>Ask</button>
        <button type="button" onClick={() => void stop()}>Stop</button>
      </form>
    </>
  );
}
