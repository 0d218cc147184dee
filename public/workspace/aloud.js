// Reading aloud, by a voice of this machine: others would send the words away.

const voice = () => globalThis.speechSynthesis?.getVoices().find((each) => each.localService);

/** Whether there is a voice. */
export const canRead = () => Boolean(voice());

/** Read a text, or be silent if something is being read. */
export function readAloud(text) {
  if (speechSynthesis.speaking) return speechSynthesis.cancel();
  const utterance = new SpeechSynthesisUtterance(text);
  utterance.voice = voice();
  speechSynthesis.speak(utterance);
}
