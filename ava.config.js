/** Tests run from the compiled output, in processes of their own; system tests start services, so few files run at once. */
export default {
  files: ['dist/test/**/*.test.js'],
  timeout: '3m',
  concurrency: 2,
  workerThreads: false,
}
